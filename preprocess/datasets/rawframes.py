"""Videos as folders of frames, with lists, as MMAction2 and TSN extract and read them.

Files in ROOT or in `annotations/`: a list with `train` in its name, and others with `val` or `test`, such as
`kinetics400_train_list_rawframes.txt`. A line is `FOLDER NUMBER_OF_FRAMES LABEL`. FOLDER is in ROOT, in `rawframes/` or
in `rawframes_SPLIT/`, and holds frames such as `img_00001.jpg`. Labels are named by `label_map_*.txt` or `classInd.txt`
in the same places, a line each, or else by their numbers. Frames are taken as 30 a second; `--set fps=25` says another
rate.

MMAction2 Contributors, 2020 (github.com/open-mmlab/mmaction2, docs: prepare_dataset).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from maskstream.preprocess.encode.video.encoder import FramesEncoder
from maskstream.preprocess.raw.lists import MAX_LABEL, read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, require_folder
from .folders import SPLIT_FOLDERS
from .split_lists import label_map, split_lists

NAME = "rawframes"
OBTAIN = (
    "Extract the frames as MMAction2's tools do, so that there are ROOT/rawframes_train/CLASS/VIDEO/img_00001.jpg and "
    "ROOT/kinetics400_train_list_rawframes.txt with a line `CLASS/VIDEO NUMBER_OF_FRAMES LABEL` for each"
)
_LINE = re.compile(r"(?P<path>.+?)[ \t,]+(?P<frames>[0-9]{1,9})[ \t,]+(?P<label>[0-9]{1,9})")
_FRAME = re.compile(r"(?:.*?[^0-9])?([0-9]+)\.jpe?g", re.IGNORECASE)


def rawframes(root: Path) -> Dataset:
    """The splits that have a list. Raises DatasetError for another layout."""
    require_folder(root, name=NAME, obtain=OBTAIN)
    lists = split_lists(NAME, (root, root / "annotations"), SPLIT_FOLDERS, (".txt", ".csv"), OBTAIN)
    listed = {split: list(_sources(root, split, path)) for split, path in lists.items()}
    most = max((source.label for sources in listed.values() for source in sources), default=-1)
    return dataset_of(
        NAME, label_map(NAME, root, most + 1, OBTAIN), listed, root=root, obtain=OBTAIN, encoder=FramesEncoder()
    )


def _sources(root: Path, split: str, path: Path) -> Iterator[Source]:
    for number, text in read_lines(path):
        found = _LINE.fullmatch(text)
        if found is None or int(found["label"]) > MAX_LABEL or not int(found["frames"]):
            raise DatasetError(
                f"{path}: line {number} is {text[:80]!r}, not `FOLDER NUMBER_OF_FRAMES LABEL` of 1 or more frames and "
                f"a label up to {MAX_LABEL}. {OBTAIN}"
            )
        name = found["path"]
        places = (root / name, root / "rawframes" / name, root / f"rawframes_{split}" / name)
        folder = next((place for place in places if place.is_dir()), places[0])
        frames = _frames(folder, int(found["frames"]))
        yield Source(id=f"{split}/{name}", path=frames[0], parts=frames[1:], label=int(found["label"]))


def _frames(folder: Path, wanted: int) -> tuple[Path, ...]:
    """The first frames of a folder by their numbers. Raises DatasetError for too few; a folder that is not there has
    one frame, which is missing.
    """
    if not folder.is_dir():
        return (folder / "img_00001.jpg",)
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _FRAME.fullmatch(path.name))]
    if len(found) < wanted:
        raise DatasetError(f"{NAME}: {folder} holds {len(found)} of the {wanted} frames that its list says. {OBTAIN}")
    return tuple(path for _, path in sorted(found)[:wanted])
