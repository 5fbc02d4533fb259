"""Your own RGB-D sequences, or the TUM RGB-D benchmark, in its layout: one folder per sequence below ROOT.

    ROOT/SEQUENCE/rgb.txt, depth.txt    a line `TIME FILE` for each image, such as `1305031102.1753 rgb/1.png`
    ROOT/SEQUENCE/groundtruth.txt       a line `TIME tx ty tz qx qy qz qw` for each pose of the colour camera

Depth images are 16-bit PNG with 5000 units per metre, registered to the colour images. The intrinsics are the ones of
freiburg1, freiburg2 or freiburg3 if the sequence's name contains it; `--set lens=[fx,fy,cx,cy]` sets others, `--set
depth_per_m=1000` another unit of depth, and `--set up=-y` world coordinates of the first camera, as SLAM systems write
them.

A fifth of the sequences, by the hash of their names, is val, unless there are ROOT/train/ and ROOT/val/. Each colour
image has the depth and the pose nearest in time, at most 0.02 s away, at 10 moments a second. A sample is 3 to 20 s of
a sequence without gaps; a sequence without such a part is a reject.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from maskstream.preprocess.encode.trajectory.rgbd import (
    APART_S,
    COLOURS,
    DEPTH,
    POSES,
    RgbdEncoder,
    Ticks,
    list_tum_ticks,
)
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.sample import Reject

from .dataset import Dataset, choose_held_out_groups, in_archives, require_folder
from .folders import readable, split_folders

NAME = "tum-rgbd"
LEAST_S, MOST_S = 3, 20
"""Shortest and longest sample in seconds."""
OBTAIN = (
    "Arrange each sequence as in the TUM RGB-D benchmark: ROOT/SEQUENCE/rgb.txt and depth.txt with lines `TIME FILE`, "
    "and ROOT/SEQUENCE/groundtruth.txt with lines `TIME tx ty tz qx qy qz qw`"
)


@in_archives(".txt")
def tum_rgbd(root: Path) -> Dataset:
    """Read RGB-D sequences in the layout of the TUM RGB-D benchmark: one folder per sequence below ROOT.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: The folder has another layout, or no sequence can be used.
    """
    require_folder(root, name=NAME, obtain=OBTAIN)
    if (root / COLOURS).is_file():
        raise DatasetError(f"{NAME}: {root} is a sequence itself; pass its parent folder as ROOT. {OBTAIN}")
    splits: dict[str, list[Source]] = {}
    missing: dict[str, list[Reject]] = {}
    for split, folder in _list_sequences(root):
        found = list(_samples(readable(folder.relative_to(root)), folder))
        splits.setdefault(split, []).extend(one for one in found if isinstance(one, Source))
        missing.setdefault(split, []).extend(one for one in found if isinstance(one, Reject))
    splits = {split: sources for split, sources in splits.items() if sources}
    if not splits:
        first = next((one for of in missing.values() for one in of), None)
        what = f"has no usable sequence: {first.source} {first.reason}" if first else "has no sequence"
        raise DatasetError(f"{NAME}: {root} {what}. {OBTAIN}")
    return Dataset(name=NAME, label_names=(), splits=splits, missing=missing, encoder=RgbdEncoder())


def _list_sequences(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the split and folder of each sequence."""
    folders = split_folders(root)
    if "train" in folders:
        for split, folder in folders.items():
            yield from ((split, path.parent) for path in sorted(folder.glob(f"*/{COLOURS}")))
        return
    found = [path.parent for path in sorted(root.glob(f"*/{COLOURS}"))]
    held_out = choose_held_out_groups((0, path.name) for path in found)
    yield from (("val" if path.name in held_out else "train", path) for path in found)


def _samples(name: str, folder: Path) -> Iterator[Source | Reject]:
    """Yield the parts of a sequence that become samples, or a reject with the missing file."""
    if lacking := [one for one in (DEPTH, POSES) if not (folder / one).is_file()]:
        yield Reject(source=name, stage="missing", reason=f"has no {lacking[0]}")
        return
    ticks = list_tum_ticks(folder / COLOURS, folder / DEPTH, folder / POSES)
    windows = list(_list_windows(ticks))
    if not windows:
        reason = f"has no {LEAST_S} s with colours, depth and poses at most {APART_S} s apart"
        yield Reject(source=name, stage="missing", reason=reason)
    there = {
        file for one in {(folder / name).parent for name in (*ticks.colours, *ticks.depth)} for file in one.glob("*")
    }
    for number, (first, stop) in enumerate(windows):
        own = f"{name}/{number:03d}"
        files = [folder / one for one in dict.fromkeys((*ticks.colours[first:stop], *ticks.depth[first:stop]))]
        if absent := [file for file in files if file not in there]:
            reason = f"there is no file {absent[0]}"
            yield Reject(source=own, stage="missing", reason=reason)
        else:
            parts = (folder / COLOURS, folder / DEPTH, *files)
            yield Source(id=own, path=folder / POSES, parts=parts, window=(first, stop), meta={"map": name})


def _list_windows(ticks: Ticks) -> Iterator[tuple[int, int]]:
    """Yield the ticks of each sample: stretches in equal parts of at most `MOST_S` seconds."""
    for first, stop in pairwise(ticks.stretches):
        if stop - first >= LEAST_S * ticks.fps:
            parts = -(-(stop - first) // (MOST_S * ticks.fps))
            yield from pairwise(np.linspace(first, stop, parts + 1).round().astype(int).tolist())
