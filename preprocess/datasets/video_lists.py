"""Videos in lists of research code: files, or folders of frames."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskstream.preprocess.encode.video.encoder import FramesEncoder
from maskstream.preprocess.raw.lists import MAX_LABEL, read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, in_archives, label_map, require_folder, split_lists
from .folders import SPLIT_FOLDERS

VIDEO_LIST = "video-list"
VIDEO_LIST_OBTAIN = (
    "Put a list into ROOT/train.csv (and ROOT/val.csv) with a line `PATH LABEL` for each video, PATH relative to ROOT "
    "or absolute. A csv with the columns path,label is read by the dataset `folder`"
)
_LINE = re.compile(r"(?P<path>.+?)[ \t,]+(?P<first>-?[0-9]+)(?:[ \t,]+(?P<second>-?[0-9]+))?")
_SUFFIXES = (".csv", ".txt", ".list")
_WHOLE = (0, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """A line of a list: its number, the path, and the label, -1 for none."""

    number: int
    path: str
    label: int


@in_archives(".csv", ".txt")
def video_list(root: Path) -> Dataset:
    """Read lists of videos in the format of VideoMAE, VideoMAE V2 and V-JEPA: one video per line, without a header.

    Files in ROOT or in `annotations/`: `train.csv` or `train.txt`, and `val` and `test` in the same way, alone or as a
    part of the name (`k710_train.csv`, `train_list.txt`). A line is `PATH LABEL`, or `PATH 0 -1` for a whole video
    without a label, separated by spaces, tabs or commas. PATH is relative to ROOT, or absolute and below it, and may
    contain spaces. LABEL is a number; `label_map*.txt` next to the lists may name them, one per line, such as
    `label_map_k710.txt` of VideoMAE V2, whose lists merge Kinetics-400, 600 and 700 into 710 labels.

    Args:
        root: Folder of the raw data.

    Returns:
        The splits that have a list.

    Raises:
        DatasetError: The folder has another layout, or a path is listed twice.
    """
    require_folder(root, name=VIDEO_LIST, obtain=VIDEO_LIST_OBTAIN)
    lists = split_lists(VIDEO_LIST, (root, root / "annotations"), SPLIT_FOLDERS, _SUFFIXES, VIDEO_LIST_OBTAIN)
    lines = {split: list(_lines(path)) for split, path in lists.items()}
    _check_distinct(root, lists, lines)
    most = max((line.label for rows in lines.values() for line in rows), default=-1)
    listed = {
        split: [Source(id=line.path, path=root / line.path, label=line.label) for line in rows]
        for split, rows in lines.items()
    }
    names = label_map(VIDEO_LIST, root, most + 1, VIDEO_LIST_OBTAIN) if most >= 0 else []
    return dataset_of(VIDEO_LIST, names, listed, root=root, obtain=VIDEO_LIST_OBTAIN, labelled=most >= 0)


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the lines of a list, which must all have the same form."""
    form: bool | None = None
    for number, text in read_lines(path):
        found = _LINE.fullmatch(text)
        if found is None:
            raise DatasetError(
                f"{path}: line {number} is {text[:80]!r}, not `PATH LABEL` or `PATH 0 -1`. {VIDEO_LIST_OBTAIN}"
            )
        whole = found["second"] is not None
        if form is not None and whole != form:
            raise DatasetError(f"{path}: line {number} has a different format from the previous lines; use one format")
        form = whole
        label = int(found["first"]) if len(found["first"]) < 10 else MAX_LABEL + 1
        if whole and (label, int(found["second"])) != _WHOLE:
            raise DatasetError(
                f"{path}: line {number} selects frames {found['first']}, {found['second']} of {found['path'][:80]!r}; "
                "only whole videos (`PATH 0 -1`) are supported"
            )
        if not whole and not -1 <= label <= MAX_LABEL:
            raise DatasetError(
                f"{path}: line {number} has the label {found['first'][:20]}, not a number from 0 to {MAX_LABEL}, or -1 "
                "for none"
            )
        yield _Line(number=number, path=found["path"], label=-1 if whole else label)


def _check_distinct(root: Path, lists: dict[str, Path], lines: dict[str, list[_Line]]) -> None:
    """Raise DatasetError if a path is listed twice, also in two lists: a model would be validated on its training
    data.
    """
    seen: dict[str, str] = {}
    for split, rows in lines.items():
        for line in rows:
            here = f"{lists[split]}: line {line.number}"
            first = seen.setdefault(os.path.normpath(root / line.path), here)
            if first != here:
                raise DatasetError(f"{here} has the same path as {first}: {line.path!r}. Remove one of them")


RAWFRAMES = "rawframes"
RAWFRAMES_OBTAIN = (
    "Extract the frames as MMAction2's tools do, so that there are ROOT/rawframes_train/CLASS/VIDEO/img_00001.jpg and "
    "ROOT/kinetics400_train_list_rawframes.txt with a line `CLASS/VIDEO NUMBER_OF_FRAMES LABEL` for each"
)
_FRAMES_LINE = re.compile(r"(?P<path>.+?)[ \t,]+(?P<frames>[0-9]{1,9})[ \t,]+(?P<label>[0-9]{1,9})")
_FRAME = re.compile(r"(?:.*?[^0-9])?([0-9]+)\.jpe?g", re.IGNORECASE)


def rawframes(root: Path) -> Dataset:
    """Read videos as folders of frames, with lists, as MMAction2 and TSN extract them.

    Files in ROOT or in `annotations/`: a list with `train` in its name, and others with `val` or `test`, such as
    `kinetics400_train_list_rawframes.txt`. A line is `FOLDER NUMBER_OF_FRAMES LABEL`. FOLDER is in ROOT, in
    `rawframes/` or in `rawframes_SPLIT/`, and contains frames such as `img_00001.jpg`. Labels are named by
    `label_map_*.txt` or `classInd.txt` in the same places, one per line, or else by their numbers. The default is 30
    frames a second; `--set fps=25` sets another rate.

    MMAction2 Contributors, 2020 (github.com/open-mmlab/mmaction2, docs: prepare_dataset).

    Args:
        root: Folder of the raw data.

    Returns:
        The splits that have a list.

    Raises:
        DatasetError: The folder has another layout, or a video has fewer frames than listed.
    """
    require_folder(root, name=RAWFRAMES, obtain=RAWFRAMES_OBTAIN)
    lists = split_lists(RAWFRAMES, (root, root / "annotations"), SPLIT_FOLDERS, (".txt", ".csv"), RAWFRAMES_OBTAIN)
    listed = {split: list(_sources(root, split, path)) for split, path in lists.items()}
    most = max((source.label for sources in listed.values() for source in sources), default=-1)
    return dataset_of(
        RAWFRAMES,
        label_map(RAWFRAMES, root, most + 1, RAWFRAMES_OBTAIN),
        listed,
        root=root,
        obtain=RAWFRAMES_OBTAIN,
        encoder=FramesEncoder(),
    )


def _sources(root: Path, split: str, path: Path) -> Iterator[Source]:
    for number, text in read_lines(path):
        found = _FRAMES_LINE.fullmatch(text)
        if found is None or int(found["label"]) > MAX_LABEL or not int(found["frames"]):
            raise DatasetError(
                f"{path}: line {number} is {text[:80]!r}, not `FOLDER NUMBER_OF_FRAMES LABEL` of 1 or more frames and "
                f"a label up to {MAX_LABEL}. {RAWFRAMES_OBTAIN}"
            )
        name = found["path"]
        places = (root / name, root / "rawframes" / name, root / f"rawframes_{split}" / name)
        folder = next((place for place in places if place.is_dir()), places[0])
        frames = _list_first_frames(folder, int(found["frames"]))
        yield Source(id=f"{split}/{name}", path=frames[0], parts=frames[1:], label=int(found["label"]))


def _list_first_frames(folder: Path, wanted: int) -> tuple[Path, ...]:
    """Return a folder's first frames, in the order of their numbers. Raise DatasetError if there are too few; a missing
    folder has one frame, which is missing.
    """
    if not folder.is_dir():
        return (folder / "img_00001.jpg",)
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _FRAME.fullmatch(path.name))]
    if len(found) < wanted:
        raise DatasetError(
            f"{RAWFRAMES}: {folder} contains {len(found)} of the {wanted} frames in its list. {RAWFRAMES_OBTAIN}"
        )
    return tuple(path for _, path in sorted(found)[:wanted])
