"""The encoder of recorded RGB-D sequences: colour and depth images in files, and a list of poses.

Depth images are 16-bit PNG, registered to the colour images, so both have the same pixels.

The layout is the one of the TUM RGB-D benchmark:

    SEQUENCE/rgb.txt, depth.txt    a line `TIME FILE` for each image
    SEQUENCE/groundtruth.txt       a line `TIME tx ty tz qx qy qz qw` for each pose of the colour camera in the world

Times are seconds; lines that begin with # are comments. The depth and pose of a colour image are the nearest ones in
time, at most `APART_S` away, as in the benchmark's own tool. Cameras lose frames, so moments are assigned to a clock:
each tick has the moment nearest to it. At a gap of more than two ticks, a stretch ends.

Source: Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012, and the benchmark's page "File
Formats".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np

from maskstream.preprocess.encode.encoder import Encoded, ProfiledEncoder
from maskstream.preprocess.encode.image.encoder import read_picture
from maskstream.preprocess.encode.image.header import read_header
from maskstream.preprocess.encode.limits import check_frame_size, check_frames, check_source_file, lasts
from maskstream.preprocess.raw.lists import read_lines
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Float64s, Int64s, UInt8s, UInt16s
from maskstream.shards.errors import DatasetError
from maskstream.shards.limits import PositiveFloat
from maskstream.shards.media.camera_pose import POSE, product, turned
from maskstream.shards.members.arrays import check_lens

from .encoder import TrajectoryEncoder, Walk, millimetres

COLOURS, DEPTH, POSES = "rgb.txt", "depth.txt", "groundtruth.txt"
APART_S = 0.02
"""Largest time difference in seconds between an image and its depth or pose."""
FPS = 10
"""Ticks per second; the rate of the images, if it is lower."""
_UNIT = 0.01


@dataclass(frozen=True, slots=True)
class Ticks:
    """A sequence on its clock.

    Attributes:
        colours: Colour file of each of n ticks, as listed.
        depth: Depth file of each of n ticks, as listed.
        path: Poses as in `shards/media/camera_pose.py`, but in the world of the lists, float64 (n, 7).
        stretches: First tick of each stretch, then n.
        fps: Ticks per second.
    """

    colours: list[str]
    depth: list[str]
    path: Float64s
    stretches: list[int]
    fps: int


def list_tum_ticks(colours_list: Path, depth_list: Path, poses_list: Path) -> Ticks:
    """Read the ticks of a sequence, which may be none. Raise DatasetError for a malformed line."""
    times, colours = _files(colours_list)
    depth_times, depth = _files(depth_list)
    pose_times, poses = _read_poses(poses_list)
    of_depth, of_pose = nearest(times, depth_times), nearest(times, pose_times)
    if not len(times) or not len(depth) or not len(poses):
        return Ticks([], [], np.empty((0, POSE)), [0], FPS)
    apart = np.maximum(np.abs(depth_times[of_depth] - times), np.abs(pose_times[of_pose] - times))
    kept = np.flatnonzero(apart <= APART_S)
    fps = int(np.clip(np.rint(1 / np.median(np.diff(times))), 1, FPS)) if len(times) > 1 else FPS
    chosen, stretches = find_on_clock(times[kept], fps)
    own = kept[chosen]
    return Ticks(
        colours=[colours[n] for n in own],
        depth=[depth[of_depth[n]] for n in own],
        path=poses[of_pose[own]],
        stretches=stretches,
        fps=fps,
    )


def find_on_clock(times: Float64s, fps: int) -> tuple[Int64s, list[int]]:
    """Return the moment of each tick, as numbers into sorted `times` (n,), and the first tick of each stretch, then
    their end.
    """
    chosen, stretches = [np.empty(0, np.int64)], [0]
    for stretch in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > 2 / fps + 1e-6) + 1):
        if len(stretch):
            own = times[stretch]
            wanted = own[0] + np.arange(int((own[-1] - own[0]) * fps + 1e-6) + 1) / fps
            chosen.append(stretch[nearest(wanted, own)])
            stretches.append(stretches[-1] + len(wanted))
    return np.concatenate(chosen), stretches


def nearest(wanted: Float64s, times: Float64s) -> Int64s:
    """Return for each of `wanted` (m,) the number of the nearest of the sorted `times` (n,); 0 if there is none."""
    if not len(times):
        return np.zeros(len(wanted), np.int64)
    after = np.searchsorted(times, wanted).clip(1, max(len(times) - 1, 1)).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    return np.where(wanted - times[before] <= times[after] - wanted, before, after).astype(np.int64)


def _files(path: Path) -> tuple[Float64s, list[str]]:
    """Return the times and files of a list of images, sorted by time."""
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


def _read_poses(path: Path) -> tuple[Float64s, Float64s]:
    """Return times (n,) and poses (n, 7), sorted by time: the quaternion with w first, of length 1."""
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


Lens = tuple[float, float, float, float]
LENSES: Mapping[str, Lens] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy of the benchmark's colour cameras in pixels; the centre of the first pixel is 0, 0."""
_UPRIGHT: Mapping[str, tuple[float, float, float, float]] = {
    "z": (1, 0, 0, 0),
    "y": (0.5**0.5, 0.5**0.5, 0, 0),
    "-y": (0.5**0.5, -(0.5**0.5), 0, 0),
}
"""Rotation of the lists' world that makes z point upwards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RgbdEncoder(ProfiledEncoder):
    """Encodes windows of sequences.

    A source's `path` is the list of poses; its `parts` are the lists of colour and depth images, then the images of the
    window, each once; its `window` counts ticks of the lists, and its meta["map"] names the sequence.

    Attributes:
        video: Profile of the colours.
        lens: fx, fy, cx, cy in pixels, where the centre of the first pixel is 0, 0; None to look it up by the
            sequence's name (`LENSES`).
        depth_per_m: Depth value of one metre.
        up: Axis of the lists' world that points upwards; "-y" for worlds with the first camera's axes, as in SLAM
            systems.
    """

    modality: ClassVar[str] = "trajectory"

    lens: Lens | None = None
    depth_per_m: PositiveFloat = 5000.0
    up: Literal["z", "y", "-y"] = "z"

    def validate(self) -> None:
        TrajectoryEncoder(self.video)
        if self.lens is not None and (problem := check_lens(*self.lens)):
            raise ValueError(f"lens must be fx, fy, cx, cy in pixels or None; it {problem}")

    def prepared(self, sources: Mapping[str, Sequence[Source]]) -> RgbdEncoder:
        """Return the same encoder. Raise ValueError if the lens of a sequence is unknown."""
        for sequence in {source.meta["map"] for of in sources.values() for source in of}:
            self.find_lens(sequence)
        return self

    def find_lens(self, sequence: str) -> Lens:
        """Return the lens of a sequence. Raise ValueError if it is unknown."""
        found = re.search("|".join(LENSES), sequence)
        if self.lens is None and found is None:
            raise ValueError(
                f"the lens of the sequence {sequence!r} is unknown because its name contains none of "
                f"{', '.join(LENSES)}; set it with --set lens=[fx,fy,cx,cy], in pixels"
            )
        return self.lens or LENSES[found[0] if found else ""]

    def encode(self, source: Source) -> Encoded:
        """Encode a window of a sequence. Raise RejectError if its images cannot be used."""
        ticks = list_tum_ticks(source.parts[0], source.parts[1], source.path)
        first, stop = source.window or (0, 0)
        colours, depth, path = ticks.colours[first:stop], ticks.depth[first:stop], ticks.path[first:stop]
        if not colours:
            raise RejectError("check", f"has {len(ticks.colours)} frames, but none from {first} to {stop}")
        files = dict(zip(dict.fromkeys((*colours, *depth)), source.parts[2:], strict=True))
        check_frames(len(colours))
        lasts(len(colours) / ticks.fps)
        fx, fy, cx, cy = self.find_lens(source.meta["map"])
        frames = [_read_colours(files[name]) for name in colours]
        stored = [_read_depth(files[name], frame.shape[:2]) for name, frame in zip(depth, frames, strict=True)]
        if len(sizes := {frame.shape for frame in frames}) != 1:
            raise RejectError("check", f"has frames of different sizes {sorted(sizes)}; all must have one size")
        walk = Walk(
            frames=frames,
            depth=[millimetres(one / self.depth_per_m) for one in stored],
            path=upright(path, self.up),
            lens=(fx, fy, cx + 0.5, cy + 0.5),
            fps=ticks.fps,
        )
        return TrajectoryEncoder(self.video).encoded(walk)


def upright(path: Float64s, up: str) -> Float64s:
    """Rotate poses (n, 7) of a world whose axis `up` points upwards, so that z does."""
    turn = np.broadcast_to(np.array(_UPRIGHT[up]), (len(path), 4))
    return np.concatenate([turned(turn, path[:, :3]), product(turn, path[:, 3:])], axis=1)


def _read_colours(path: Path) -> UInt8s:
    """Read a colour image, uint8 (H, W, 3), RGB."""
    pixels = read_picture(path).pixels
    check_frame_size(pixels.shape[1], pixels.shape[0])
    return np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2))


def _read_depth(path: Path, size: tuple[int, ...]) -> UInt16s:
    """Read a depth image, uint16 (H, W), as stored."""
    check_source_file(path)
    data = path.read_bytes()
    header = read_header(data)
    if header is None or header.form != "png":
        raise RejectError("open", f"the depth {path.name} is not a PNG")
    if (header.height, header.width) != size[:2]:
        raise RejectError(
            "check",
            f"the depth {path.name} has {header.width}x{header.height} pixels, but its colours have "
            f"{size[1]}x{size[0]}; depth must be registered to colours",
        )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        held = "cannot be decoded" if pixels is None else f"holds {pixels.dtype} {pixels.shape}"
        raise RejectError("decode", f"the depth {path.name} {held}; depth must have 16 bits and one channel")
    return pixels.astype(np.uint16, copy=False)
