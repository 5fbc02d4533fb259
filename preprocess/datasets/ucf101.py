"""UCF101 as its authors publish it.

Files below ROOT: `classInd.txt`, `trainlist01.txt` and `testlist01.txt`, in ROOT or one folder down (such as
`ucfTrainTestlist/`); and the videos in any folder, as `v_{Class}_g{group}_c{clip}.avi`. The test list is the split
`val`.

K. Soomro, A. R. Zamir, M. Shah, UCF101, arXiv 1212.0402.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from maskstream.preprocess.raw.lists import read_lines, whole_number
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import (
    Dataset,
    MediaFiles,
    dataset_of,
    first_existing,
    in_archives,
    require_folder,
)

OBTAIN = (
    "Get UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from crcv.ucf.edu/data/UCF101.php, and lay them out "
    "as ROOT/UCF-101/ApplyEyeMakeup/*.avi and ROOT/ucfTrainTestlist/*.txt"
)


@in_archives(".txt")
def ucf101(root: Path, *, fold: int = 1) -> Dataset:
    """The splits of the published fold 1, 2 or 3. Raises DatasetError for another layout, ValueError for others."""
    if not 1 <= fold <= 3:
        raise ValueError(f"UCF101 has the folds 1 to 3, got {fold=}")
    name = "ucf101" if fold == 1 else f"ucf101-{fold}"
    require_folder(root, name=name, obtain=OBTAIN)
    numbers = {}
    for line in _lines(root, "classInd.txt"):
        number, _, label = line.partition(" ")
        if whole_number(number) is None or not label:
            raise DatasetError(f"{name}: classInd.txt has the line {line!r}, not such as '1 ApplyEyeMakeup'. {OBTAIN}")
        numbers[label.strip()] = int(number) - 1
    label_names = sorted(numbers, key=numbers.__getitem__)
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {}
    for split, text in (("train", f"trainlist{fold:02d}.txt"), ("val", f"testlist{fold:02d}.txt")):
        listed[split] = []
        for line in _lines(root, text):
            entry = PurePosixPath(line.split()[0])
            label = entry.parent.name
            if label not in numbers:
                raise DatasetError(f"{name}: {text} has the line {line!r} of a class not in classInd.txt. {OBTAIN}")
            path = files.find(entry.stem, lambda path, label=label: path.parent.name == label)  # type: ignore[misc]
            listed[split].append(Source(id=str(entry), path=path, label=label_names.index(label)))
    return dataset_of(name, label_names, listed, root=root, obtain=OBTAIN)


def _lines(root: Path, name: str) -> list[str]:
    path = first_existing(root, name, f"*/{name}")
    if path is None:
        raise DatasetError(f"ucf101: there is no {name} in {root} or a folder in it. {OBTAIN}")
    return [line for _, line in read_lines(path)]
