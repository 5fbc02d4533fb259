"""HMDB51 as its authors publish it.

Files below ROOT: `{class}_test_split{1,2,3}.txt`, in ROOT or one folder down (`testTrainMulti_7030_splits/`); a line
holds a file and 0 (not used), 1 (train) or 2 (test, here the split `val`). The videos are in any folder, in one folder
per class.

H. Kuehne et al., HMDB: A Large Video Database for Human Motion Recognition, ICCV 2011.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.raw.lists import read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, MediaFiles, dataset_of, in_archives, require_folder

OBTAIN = (
    "Get hmdb51_org.rar and test_train_splits.rar from serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-"
    "database, unpack them and the archive of each class, and lay them out as ROOT/hmdb51_org/brush_hair/*.avi and "
    "ROOT/testTrainMulti_7030_splits/*.txt"
)
_SPLITS = {"1": "train", "2": "val"}


@in_archives(".txt")
def hmdb51(root: Path, *, fold: int = 1) -> Dataset:
    """The splits of the published fold 1, 2 or 3. Raises DatasetError for another layout, ValueError for others."""
    if not 1 <= fold <= 3:
        raise ValueError(f"HMDB51 has the folds 1 to 3, got {fold=}")
    name = "hmdb51" if fold == 1 else f"hmdb51-{fold}"
    require_folder(root, name=name, obtain=OBTAIN)
    ending = f"_test_split{fold}.txt"
    lists = {path.name.removesuffix(ending): path for path in [*root.glob(f"*{ending}"), *root.glob(f"*/*{ending}")]}
    if not lists:
        raise DatasetError(f"{name}: there is no list CLASS{ending} in {root} or a folder in it. {OBTAIN}")
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {"train": [], "val": []}
    for number, label in enumerate(sorted(lists)):
        for at, line in read_lines(lists[label]):
            file, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise DatasetError(f"{name}: {lists[label]}: line {at} is {line!r}, not a file and 0, 1 or 2. {OBTAIN}")
            if use in _SPLITS:
                path = files.find(Path(file).stem, lambda path, label=label: path.parent.name == label)  # type: ignore[misc]
                listed[_SPLITS[use]].append(Source(id=f"{label}/{file}", path=path, label=number))
    return dataset_of(name, sorted(lists), listed, root=root, obtain=OBTAIN)
