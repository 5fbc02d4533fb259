"""Pose sequences of the game Lugaru: some 108 fights, flips, falls and runs of hand-made key poses, one minute in all.

They are downloaded as Debian's lugaru-data (34 MB, CC-BY-SA-3.0). A copy of its folder Animations may be put at
ROOT/lugaru-data. Poses between the few key poses of a sequence are interpolated (preprocess/encode/pose/encoder.py).
Labels are derived from names, and sequences that share poses share a split.

A file is big-endian: int32 counts of key poses and joints; for each key pose, float32 x, y, z of every joint, float32
of every joint (its twist), a byte for every joint (whether it is on the ground) and float32 speed; then data that is
not needed. There are 20 joints, always in the same order; y points upwards and characters look along z. A unit is 0.2
m, the game's own scale. At the game's normal pace the step to the next key pose takes 1 / (2 speed) seconds.
"""

from pathlib import Path

import numpy as np

from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.encode.pose.encoder import FORMAT
from maskstream.preprocess.encode.pose.motion_files import Motion, upright
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.debian import fetch_debian_folder
from maskstream.shards.errors import DatasetError

from .actions import parse_action_label

PACKAGE, INSIDE = "lugaru-data", "usr/share/games/lugaru/Animations"
_LEFT_OUT = {"Tempanim"}
"""A single pose."""


def fetch_lugaru(root: Path) -> list[Source]:
    """Download the pose sequences into `root`."""
    folder = fetch_debian_folder(PACKAGE, INSIDE, root)
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in _LEFT_OUT)
    if not paths:
        raise DatasetError(f"lugaru: {folder} contains no motion files; remove it to download it again")
    meta = {FORMAT: "lugaru"}
    return [
        Source(id=f"lugaru/{path.name}", path=path, label=parse_action_label(path.name), meta=meta, made_by=read)
        for path in paths
    ]


def read(source: Source) -> Motion:
    """Read the key poses of a source."""
    return read_lugaru(source.path)


JOINTS = (
    "head", "right ankle", "right knee", "right hip", "left hip", "left knee", "right foot", "left foot", "groin",
    "abdomen", "left shoulder", "right shoulder", "left elbow", "left wrist", "left hand", "right elbow",
    "right wrist", "right hand", "neck", "left ankle",
)  # fmt: skip
UNIT_M = 0.2
_HEADER = np.dtype([("frames", ">i4"), ("joints", ">i4")])
_KEY = np.dtype([("place", ">f4", (20, 3)), ("twist", ">f4", 20), ("ground", "u1", 20), ("speed", ">f4")])


def read_lugaru(path: Path) -> Motion:
    """Parse the key poses of a file. Raises RejectError if it is not such a file, is truncated, or has fewer than two
    key poses.
    """
    check_source_file(path)
    data = path.read_bytes()
    if len(data) < _HEADER.itemsize:
        raise RejectError("open", f"has {len(data)} bytes, too few for a Lugaru motion")
    frames, joints = map(int, np.frombuffer(data, _HEADER, 1)[0])
    if joints != len(JOINTS) or frames < 1 or _HEADER.itemsize + frames * _KEY.itemsize > len(data):
        raise RejectError(
            "decode",
            f"is not a Lugaru motion, or is truncated: it declares {frames} key poses of {joints} joints in "
            f"{len(data)} bytes; expected {len(JOINTS)} joints and {_KEY.itemsize} bytes per key pose",
        )
    keys = np.frombuffer(data, _KEY, frames, offset=_HEADER.itemsize)
    speed = keys["speed"].astype(np.float64)
    if not (np.isfinite(speed).all() and (speed > 0).all()):
        raise RejectError("decode", "a key pose has a speed that is not above 0")
    times = np.concatenate([[0.0], np.cumsum(0.5 / speed)[:-1]])
    return Motion(places=upright(keys["place"].astype(np.float64) * UNIT_M), names=JOINTS, times_s=times)
