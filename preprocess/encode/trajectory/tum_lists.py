"""The lists of a sequence in the layout of the TUM RGB-D benchmark, and the moments that they have in common.

    SEQUENCE/rgb.txt, depth.txt    a line `TIME FILE` for each picture
    SEQUENCE/groundtruth.txt       a line `TIME tx ty tz qx qy qz qw` for each pose of the colour camera in the world

Times are seconds; lines that begin with # are comments. A picture's depth and pose are those nearest in time, at most
`APART_S` away, as in the benchmark's own tool. Cameras lose frames, so moments are brought on a clock: each tick has
the moment nearest to it. Where the lists leave a gap of more than two ticks, a stretch ends.

Source: Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012, and the benchmark's page "File
Formats".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.raw.lists import read_lines
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.camera_pose import POSE, Floats

COLOURS, DEPTH, POSES = "rgb.txt", "depth.txt", "groundtruth.txt"
APART_S = 0.02
"""How far in time a picture's depth and pose may be."""
FPS = 10
"""The ticks in a second; as many as there are pictures, where they are fewer."""
_UNIT = 0.01

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ticks:
    """A sequence on its clock, `fps` ticks a second. colours, depth: a file for each of n ticks, as the lists name it.
    path: float64 (n, 7), poses as in `shards/media/camera_pose.py`, but in the lists' world. stretches: the first tick
    of each, and n.
    """

    colours: list[str]
    depth: list[str]
    path: Floats
    stretches: list[int]
    fps: int


def tum_ticks(colours_list: Path, depth_list: Path, poses_list: Path) -> Ticks:
    """The ticks of a sequence, which may be none. DatasetError for a line of another format."""
    times, colours = _files(colours_list)
    depth_times, depth = _files(depth_list)
    pose_times, poses = _poses(poses_list)
    of_depth, of_pose = nearest(times, depth_times), nearest(times, pose_times)
    if not len(times) or not len(depth) or not len(poses):
        return Ticks([], [], np.empty((0, POSE)), [0], FPS)
    apart = np.maximum(np.abs(depth_times[of_depth] - times), np.abs(pose_times[of_pose] - times))
    kept = np.flatnonzero(apart <= APART_S)
    fps = int(np.clip(np.rint(1 / np.median(np.diff(times))), 1, FPS)) if len(times) > 1 else FPS
    chosen, stretches = on_clock(times[kept], fps)
    own = kept[chosen]
    return Ticks(
        colours=[colours[n] for n in own],
        depth=[depth[of_depth[n]] for n in own],
        path=poses[of_pose[own]],
        stretches=stretches,
        fps=fps,
    )


def on_clock(times: Floats, fps: int) -> tuple[Ints, list[int]]:
    """The moment of each tick, numbers into sorted `times` (n,), and the first tick of each stretch, then their end."""
    chosen, stretches = [np.empty(0, np.int64)], [0]
    for stretch in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > 2 / fps + 1e-6) + 1):
        if len(stretch):
            own = times[stretch]
            wanted = own[0] + np.arange(int((own[-1] - own[0]) * fps + 1e-6) + 1) / fps
            chosen.append(stretch[nearest(wanted, own)])
            stretches.append(stretches[-1] + len(wanted))
    return np.concatenate(chosen), stretches


def nearest(wanted: Floats, times: Floats) -> Ints:
    """For each of `wanted` (m,) the number of the nearest of the sorted `times` (n,); 0 where there is none."""
    if not len(times):
        return np.zeros(len(wanted), np.int64)
    after = np.searchsorted(times, wanted).clip(1, max(len(times) - 1, 1)).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    return np.where(wanted - times[before] <= times[after] - wanted, before, after).astype(np.int64)


def _files(path: Path) -> tuple[Floats, list[str]]:
    """Times and files of a list of pictures, sorted by time."""
    times, files = [], []
    for number, text in read_lines(path):
        if not text.startswith("#"):
            time, _, file = text.partition(" ")
            if not file.strip():
                raise DatasetError(f"{path}: line {number} is {text[:80]!r}, not `TIME FILE`")
            times.append(_numbers([time], path, number, text)[0])
            files.append(file.strip())
    order = np.argsort(times, kind="stable")
    return np.array(times, np.float64)[order], [files[n] for n in order]


def _poses(path: Path) -> tuple[Floats, Floats]:
    """Times (n,) and poses (n, 7), sorted by time: the quaternion with w first, of length 1."""
    found: list[list[float]] = []
    for number, text in read_lines(path):
        if not text.startswith("#"):
            row = _numbers(text.split(), path, number, text)
            if len(row) != 1 + POSE or abs(np.linalg.norm(row[4:]) - 1) > _UNIT:
                raise DatasetError(
                    f"{path}: line {number} is {text[:80]!r}, not `TIME tx ty tz qx qy qz qw` with a quaternion of "
                    "length 1"
                )
            found.append(row)
    rows = np.array(sorted(found), np.float64).reshape(-1, 1 + POSE)
    turns = rows[:, [7, 4, 5, 6]]
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    return rows[:, 0], np.concatenate([rows[:, 1:4], turns], axis=1)


def _numbers(fields: list[str], path: Path, line: int, text: str) -> list[float]:
    try:
        numbers = [float(one) for one in fields]
        if not np.isfinite(numbers).all():
            raise ValueError("a number is not finite")
    except ValueError as error:
        raise DatasetError(f"{path}: line {line} is {text[:80]!r}, not numbers ({error})") from error
    return numbers
