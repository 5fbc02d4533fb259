"""Motion capture of 20 actions in PyBullet's package: flips, a crawl, dances, kicks, runs and walks, 40 seconds in
total.

The wheel has 103 MB (zlib licence), but only the motion capture is stored; the wheel of one platform is downloaded,
because the data are the same in all. Labels are derived from names, and sequences that share poses share a split, such
as all walking and turning.

The format comes from DeepMimic (Peng et al., 2018). A file is JSON; each entry of `Frames` has 44 numbers: the seconds
to the next frame, the root's position in metres, and rotations relative to the parent: quaternions w, x, y, z, and for
knees and elbows an angle around z. y points upwards and the character looks along x. The skeleton is the package's
humanoid, at a quarter of its size.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.encode.pose.encoder import FORMAT
from maskstream.preprocess.encode.pose.motion_files import Motion, upright
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.packages import Package, fetch_folder
from maskstream.shards.arrays import Float64s

from .actions import parse_action_label

PYBULLET = Package(
    name="pybullet",
    version="3.2.7",
    sha256="5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff",
    wheel_of=("311", "manylinux_2_17_x86_64"),
)
INSIDE = "pybullet_data/data/motions"


def fetch_pybullet(root: Path) -> list[Source]:
    """Download the pose sequences of people into `root`; sequences of other bodies are skipped."""
    folder = fetch_folder(PYBULLET, INSIDE, root)
    paths = [*sorted(folder.glob("humanoid3d_*.txt")), *sorted(folder.glob("walker/*.txt"))]
    return [
        Source(
            id=f"pybullet/{path.stem}",
            path=path,
            label=parse_action_label(path.stem.lstrip("0")),
            meta={FORMAT: "deepmimic"},
            made_by=read,
        )
        for path in paths
    ]


def read(source: Source) -> Motion:
    """Read the motion of a source."""
    return read_deepmimic(source.path)


_Joint = tuple[str, str, tuple[float, float, float], int | None, int]
SKELETON: tuple[_Joint, ...] = (
    ("root", "", (0.0, 0.0, 0.0), 4, 4),
    ("chest", "root", (0.0, 0.236151, 0.0), 8, 4),
    ("neck", "chest", (0.0, 0.223894, 0.0), 12, 4),
    ("head", "neck", (0.0, 0.175, 0.0), None, 0),
    ("right_hip", "root", (0.0, 0.0, 0.084887), 16, 4),
    ("right_knee", "right_hip", (0.0, -0.421546, 0.0), 20, 1),
    ("right_ankle", "right_knee", (0.0, -0.40987, 0.0), None, 0),
    ("right_shoulder", "chest", (-0.02405, 0.2435, 0.18311), 25, 4),
    ("right_elbow", "right_shoulder", (0.0, -0.274788, 0.0), 29, 1),
    ("right_wrist", "right_elbow", (0.0, -0.258947, 0.0), None, 0),
    ("left_hip", "root", (0.0, 0.0, -0.084887), 30, 4),
    ("left_knee", "left_hip", (0.0, -0.421546, 0.0), 34, 1),
    ("left_ankle", "left_knee", (0.0, -0.40987, 0.0), None, 0),
    ("left_shoulder", "chest", (-0.02405, 0.2435, -0.18311), 39, 4),
    ("left_elbow", "left_shoulder", (0.0, -0.274788, 0.0), 43, 1),
    ("left_wrist", "left_elbow", (0.0, -0.258947, 0.0), None, 0),
)
"""Name, parent, position in the parent's frame in metres, first number of the rotation and its number of values."""
NUMBERS = 44


def read_deepmimic(path: Path) -> Motion:
    """Return the joints of a motion. Raises RejectError if the file is not one."""
    check_source_file(path)
    try:
        frames: Any = json.loads(path.read_bytes())["Frames"]
        values = np.array(frames, dtype=np.float64)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"is not a JSON file with Frames of numbers ({type(error).__name__}: {error})"
        raise RejectError("decode", reason) from error
    if values.ndim != 2 or values.shape[1] != NUMBERS:
        raise RejectError("decode", f"has Frames {values.shape}; a frame of a humanoid has {NUMBERS} numbers")
    times = np.concatenate([[0.0], np.cumsum(values[:-1, 0])])
    places: dict[str, Float64s] = {}
    turns: dict[str, Float64s] = {}
    for name, parent, offset, first, count in SKELETON:
        own = _turn(values[:, first : first + count]) if first is not None else None
        if not parent:
            places[name], above = values[:, 1:4], np.broadcast_to(np.eye(3), (len(values), 3, 3))
        else:
            above = turns[parent]
            places[name] = places[parent] + above @ np.array(offset)
        turns[name] = above if own is None else above @ own
    return Motion(places=upright(np.stack(list(places.values()), axis=1)), names=tuple(places), times_s=times)


def _turn(values: Float64s) -> Float64s:
    """Return rotation matrices (T, 3, 3) of quaternions w, x, y, z (T, 4), or of angles around z in radians (T, 1)."""
    if values.shape[1] == 1:
        half = values[:, 0] / 2
        values = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)
    w, x, y, z = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)
