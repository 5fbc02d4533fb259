"""Video datasets of actions, in the layouts of their publishers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.raw.lists import TableRow, parse_whole_number, read_json, read_lines, read_table
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import (
    Dataset,
    MediaFiles,
    dataset_of,
    describe_one_down,
    find_first_existing,
    in_archives,
    require_folder,
)
from .folders import list_class_folders

K400_OBTAIN = (
    "Get lists and videos with the scripts of github.com/cvdfoundation/kinetics-dataset, and arrange them as ROOT/"
    "annotations/train.csv and val.csv, ROOT/train/*.mp4, ROOT/val/*.mp4, ROOT/replacement_for_corrupted_k400/*.mp4; "
    "or leave the parts packed, as ROOT/k400_targz/train/part_0.tar.gz"
)
_K400_COLUMNS = ("youtube_id", "time_start", "time_end")
_K400_LISTS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


@in_archives(".csv")
def k400(root: Path, name: str = "k400") -> Dataset:
    """Read Kinetics-400, -600 or -700 as the CVD Foundation publishes it, or in class folders.

    Files below ROOT: the lists `train.csv`, `val.csv` (or `validate.csv`) and `test.csv`, or the same with .txt, in
    ROOT or in `annotations/`, with the columns label, youtube_id, time_start, time_end; and the videos in any folder,
    as `{id}_{start:06d}_{end:06d}.mp4`. Files in a folder `replacement*` (repaired copies) take precedence over others
    of the same name. Without lists, the folders `train` (or `videos_train`), `val`, `test` contain one folder per
    class.

    W. Kay et al., The Kinetics Human Action Video Dataset, arXiv 1705.06950; J. Carreira et al., arXiv 1808.01340
    (600); L. Smaira et al., arXiv 2010.10864 (700-2020).

    Args:
        root: Folder of the raw data.
        name: Name of the dataset.

    Returns:
        The splits that have a list, but test only if its videos exist.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name=name, obtain=K400_OBTAIN)
    found = {
        split: find_first_existing(
            root,
            *(
                f"{folder}{form}.{ending}"
                for ending in ("csv", "txt")
                for stem in names
                for folder in ("annotations/", "")
                for form in (stem, f"*_{stem}")
            ),
        )
        for split, names in _K400_LISTS.items()
    }
    rows = {
        split: list(read_table(path, _K400_COLUMNS, obtain=K400_OBTAIN))
        for split, path in found.items()
        if path is not None
    }
    if rows:
        return _build_k400_listed(root, rows, name)
    if near := describe_one_down(root, "annotations/train.csv", "annotations/train.txt"):
        raise DatasetError(f"{name}: there is no annotations/train.csv in {root}.{near} {K400_OBTAIN}")
    others = Counter[str]()
    label_names, listed, doubt = list_class_folders(root, others=others)
    if not label_names:
        raise DatasetError(
            f"{name}: {root} has neither lists (annotations/train.csv, val.csv, or the same without annotations/) "
            f"nor folders train and val with one folder per class. {K400_OBTAIN}"
        )
    if doubt:
        doubt = f"{doubt}; or add the missing lists of the splits to ROOT/annotations/ (train.csv, val.csv)"
    dataset = dataset_of(name, label_names, listed, root=root, obtain=K400_OBTAIN, doubt=doubt)
    return replace(dataset, passed_over=others)


def _build_k400_listed(root: Path, rows: dict[str, list[TableRow]], name: str) -> Dataset:
    label_names = sorted({label for split in rows.values() for row in split if (label := row.get("label"))})
    numbers = {label: number for number, label in enumerate(label_names)}
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {}
    for split, entries in rows.items():
        listed[split] = []
        for row in entries:
            stem = f"{row['youtube_id']}_{int(row.seconds('time_start')):06d}_{int(row.seconds('time_end')):06d}"
            path = files.find(stem, lambda path: path.parent.name.startswith("replacement"))
            listed[split].append(Source(id=f"{split}/{stem}", path=path, label=numbers.get(row.get("label"), -1)))
    if not any(source.path.is_file() for source in listed.get("test", [])):
        listed.pop("test", None)
    return dataset_of(name, label_names, listed, root=root, obtain=K400_OBTAIN)


SSV2_OBTAIN = (
    "Get it from qualcomm.com/developer/software/something-something-v-2-dataset (a login is needed), join and unpack "
    "the parts of the archive, and arrange it as ROOT/20bn-something-something-v2/*.webm and ROOT/labels.json, "
    "train.json, validation.json"
)


@in_archives(".json")
def ssv2(root: Path) -> Dataset:
    """Read Something-Something V2 as Qualcomm publishes it.

    Files in ROOT or one folder down: `labels.json` (template to number), `train.json` and `validation.json` (id and
    template of each video), or the same with the long names `something-something-v2-*.json`. The videos are in any
    folder below ROOT as `{id}.webm`. A video's label is its template without the brackets.

    R. Goyal et al., The "Something Something" Video Database, arXiv 1706.04261.

    Args:
        root: Folder of the raw data.

    Returns:
        The splits train and val.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name="ssv2", obtain=SSV2_OBTAIN)
    found = {template: parse_whole_number(str(number)) for template, number in _read_ssv2(root, "labels", dict).items()}
    numbers = {template: number for template, number in found.items() if number is not None}
    label_names = sorted(numbers, key=numbers.__getitem__)
    if [numbers[name] for name in label_names] != list(range(len(found))):
        raise DatasetError(f"ssv2: the numbers in labels.json are not 0 to {len(found) - 1}. {SSV2_OBTAIN}")
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {}
    for split, name in (("train", "train"), ("val", "validation")):
        listed[split] = [_make_ssv2_source(files, entry, numbers) for entry in _read_ssv2(root, name, list)]
    return dataset_of("ssv2", label_names, listed, root=root, obtain=SSV2_OBTAIN)


def _make_ssv2_source(files: MediaFiles, entry: Any, numbers: dict[str, int]) -> Source:
    try:
        number, template = str(entry["id"]), str(entry["template"]).replace("[", "").replace("]", "")
        return Source(id=number, path=files.find(number, Path.is_file), label=numbers[template])
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"ssv2: the entry {str(entry)[:200]} has no id, or no template that labels.json contains. {SSV2_OBTAIN}"
        ) from error


def _read_ssv2(root: Path, name: str, kind: type) -> Any:
    long = f"something-something-v2-{name}.json"
    path = find_first_existing(root, f"{name}.json", long, f"*/{name}.json", f"*/{long}")
    if path is None:
        raise DatasetError(f"ssv2: there is no {name}.json and no {long} in {root} or a folder in it. {SSV2_OBTAIN}")
    data = read_json(path, SSV2_OBTAIN)
    if not isinstance(data, kind) or not data:
        raise DatasetError(
            f"ssv2: {path} must contain a non-empty {kind.__name__}, got {type(data).__name__}. {SSV2_OBTAIN}"
        )
    return data


UCF101_OBTAIN = (
    "Get UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from crcv.ucf.edu/data/UCF101.php, and arrange them "
    "as ROOT/UCF-101/ApplyEyeMakeup/*.avi and ROOT/ucfTrainTestlist/*.txt"
)


@in_archives(".txt")
def ucf101(root: Path, *, fold: int = 1) -> Dataset:
    """Read UCF101 as its authors publish it.

    Files below ROOT: `classInd.txt`, `trainlist01.txt` and `testlist01.txt`, in ROOT or one folder down (such as
    `ucfTrainTestlist/`); and the videos in any folder, as `v_{Class}_g{group}_c{clip}.avi`. The test list becomes the
    split `val`.

    K. Soomro, A. R. Zamir, M. Shah, UCF101, arXiv 1212.0402.

    Args:
        root: Folder of the raw data.
        fold: Published fold, 1 to 3.

    Raises:
        DatasetError: The folder has another layout.
        ValueError: There is no such fold.
    """
    if not 1 <= fold <= 3:
        raise ValueError(f"UCF101 has folds 1 to 3, got {fold=}")
    name = "ucf101" if fold == 1 else f"ucf101-{fold}"
    require_folder(root, name=name, obtain=UCF101_OBTAIN)
    numbers = {}
    for line in _read_ucf101_lines(root, "classInd.txt"):
        number, _, label = line.partition(" ")
        if parse_whole_number(number) is None or not label:
            raise DatasetError(
                f"{name}: classInd.txt has the line {line!r}, not one like '1 ApplyEyeMakeup'. {UCF101_OBTAIN}"
            )
        numbers[label.strip()] = int(number) - 1
    label_names = sorted(numbers, key=numbers.__getitem__)
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {}
    for split, text in (("train", f"trainlist{fold:02d}.txt"), ("val", f"testlist{fold:02d}.txt")):
        listed[split] = []
        for line in _read_ucf101_lines(root, text):
            entry = PurePosixPath(line.split()[0])
            label = entry.parent.name
            if label not in numbers:
                raise DatasetError(
                    f"{name}: {text} has the line {line!r}, whose class is not in classInd.txt. {UCF101_OBTAIN}"
                )
            path = files.find(entry.stem, lambda path, label=label: path.parent.name == label)  # type: ignore[misc]
            listed[split].append(Source(id=str(entry), path=path, label=label_names.index(label)))
    return dataset_of(name, label_names, listed, root=root, obtain=UCF101_OBTAIN)


def _read_ucf101_lines(root: Path, name: str) -> list[str]:
    path = find_first_existing(root, name, f"*/{name}")
    if path is None:
        raise DatasetError(f"ucf101: there is no {name} in {root} or a folder in it. {UCF101_OBTAIN}")
    return [line for _, line in read_lines(path)]


HMDB51_OBTAIN = (
    "Get hmdb51_org.rar and test_train_splits.rar from serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-"
    "database, unpack them and the archive of each class, and arrange them as ROOT/hmdb51_org/brush_hair/*.avi and "
    "ROOT/testTrainMulti_7030_splits/*.txt"
)
_HMDB51_SPLITS = {"1": "train", "2": "val"}


@in_archives(".txt")
def hmdb51(root: Path, *, fold: int = 1) -> Dataset:
    """Read HMDB51 as its authors publish it.

    Files below ROOT: `{class}_test_split{1,2,3}.txt`, in ROOT or one folder down (`testTrainMulti_7030_splits/`); a
    line contains a file and 0 (not used), 1 (train) or 2 (test, here the split `val`). The videos are in any folder, in
    one folder per class.

    H. Kuehne et al., HMDB: A Large Video Database for Human Motion Recognition, ICCV 2011.

    Args:
        root: Folder of the raw data.
        fold: Published fold, 1 to 3.

    Raises:
        DatasetError: The folder has another layout.
        ValueError: There is no such fold.
    """
    if not 1 <= fold <= 3:
        raise ValueError(f"HMDB51 has folds 1 to 3, got {fold=}")
    name = "hmdb51" if fold == 1 else f"hmdb51-{fold}"
    require_folder(root, name=name, obtain=HMDB51_OBTAIN)
    ending = f"_test_split{fold}.txt"
    lists = {path.name.removesuffix(ending): path for path in [*root.glob(f"*{ending}"), *root.glob(f"*/*{ending}")]}
    if not lists:
        raise DatasetError(f"{name}: there is no list CLASS{ending} in {root} or a folder in it. {HMDB51_OBTAIN}")
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {"train": [], "val": []}
    for number, label in enumerate(sorted(lists)):
        for at, line in read_lines(lists[label]):
            file, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise DatasetError(
                    f"{name}: {lists[label]}: line {at} is {line!r}; it must be a file and 0, 1 or 2. {HMDB51_OBTAIN}"
                )
            if use in _HMDB51_SPLITS:
                path = files.find(Path(file).stem, lambda path, label=label: path.parent.name == label)  # type: ignore[misc]
                listed[_HMDB51_SPLITS[use]].append(Source(id=f"{label}/{file}", path=path, label=number))
    return dataset_of(name, sorted(lists), listed, root=root, obtain=HMDB51_OBTAIN)


VGGSOUND_OBTAIN = (
    "Get vggsound.csv from www.robots.ox.ac.uk/~vgg/data/vggsound, and arrange it and the clips as ROOT/vggsound.csv "
    "and ROOT/video/ID_000030.mp4"
)
VGGSOUND_COLUMNS = ("id", "start", "label", "split")
"""Columns of the list, which has no header."""
VGGSOUND_SPLITS = {"train": "train", "test": "val"}
VGGSOUND_SECONDS = 10


@in_archives(".csv")
def vggsound(root: Path) -> Dataset:
    """Read VGGSound as its authors publish it: a list, with the ten-second clips that you have downloaded for it.

    Files below ROOT: `vggsound.csv`, in ROOT or one folder down, without a header; a line contains a YouTube id, the
    clip's start in seconds, a label, and train or test. The clips with their audio are in any folder as
    `{id}_{start:06d}.mp4` (or `{id}_{start}.mp4`, `{id}_{start}_{stop}.mp4`). The test list becomes the split `val`.

    H. Chen, W. Xie, A. Vedaldi, A. Zisserman, VGGSound, ICASSP 2020.

    Args:
        root: Folder of the raw data.

    Returns:
        The published splits.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name="vggsound", obtain=VGGSOUND_OBTAIN)
    rows = _read_vggsound_rows(root)
    label_names = sorted({label for _, _, label, _ in rows})
    numbers = {label: number for number, label in enumerate(label_names)}
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {split: [] for split in VGGSOUND_SPLITS.values()}
    for video, start, label, split in rows:
        path = _clip_path(files, video, start)
        listed[VGGSOUND_SPLITS[split]].append(Source(id=f"{video}_{start:06d}", path=path, label=numbers[label]))
    return dataset_of(
        "vggsound",
        label_names,
        {split: sources for split, sources in listed.items() if sources},
        root=root,
        obtain=VGGSOUND_OBTAIN,
        encoder=AudioVisualEncoder(),
    )


def _read_vggsound_rows(root: Path) -> list[tuple[str, int, str, str]]:
    """Return the YouTube id, start in seconds, label and list (train or test) of each clip."""
    path = find_first_existing(root, "vggsound.csv", "*/vggsound.csv")
    if path is None:
        raise DatasetError(f"vggsound: there is no vggsound.csv in {root} or one folder down. {VGGSOUND_OBTAIN}")
    rows = []
    for row in read_table(path, VGGSOUND_COLUMNS, names=VGGSOUND_COLUMNS, obtain=VGGSOUND_OBTAIN):
        video, label, split = (row[column].strip() for column in ("id", "label", "split"))
        if split not in VGGSOUND_SPLITS:
            raise row.error(f"the split {split!r}, not {' or '.join(VGGSOUND_SPLITS)}", VGGSOUND_OBTAIN)
        rows.append((video, row.number("start"), label, split))
    return rows


def _clip_path(files: MediaFiles, video: str, start: int) -> Path:
    """Return the clip's file under the first usual name that exists."""
    names = [f"{video}_{start:06d}", f"{video}_{start}", f"{video}_{start}_{start + VGGSOUND_SECONDS}"]
    names.append(f"{video}_{start * 1000}_{(start + VGGSOUND_SECONDS) * 1000}")
    found = [files.find(name, lambda _: True) for name in names]
    return next((path for path in found if path.is_file()), found[0])
