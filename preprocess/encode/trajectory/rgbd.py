"""The encoder of recorded RGB-D sequences: pictures of colours and of depth in files, and a list of poses.

Depth pictures are PNG of 16 bits, registered to the colours, so both have the same pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.encode.image.header import read_header
from maskstream.preprocess.encode.image.picture import UInt8s, read_picture
from maskstream.preprocess.encode.limits import check_frame_size, check_frames, lasts
from maskstream.preprocess.encode.source_file import check_source_file
from maskstream.preprocess.encode.video.profile import PROFILES, VideoProfile
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import Config
from maskstream.shards.media.camera_pose import Floats, product, turned
from maskstream.shards.members.camera_path import problem_of_lens

from .encoder import TrajectoryEncoder
from .tum_lists import tum_ticks
from .walk import UInt16s, Walk, millimetres

Lens = tuple[float, float, float, float]
LENSES: Mapping[str, Lens] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy of the benchmark's colour cameras in pixels; the middle of the first pixel is 0, 0."""
_UPRIGHT: Mapping[str, tuple[float, float, float, float]] = {
    "z": (1, 0, 0, 0),
    "y": (0.5**0.5, 0.5**0.5, 0, 0),
    "-y": (0.5**0.5, -(0.5**0.5), 0, 0),
}
"""The turn of the lists' world that lets z point upwards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RgbdEncoder(Config):
    """Encodes windows of sequences. A source's `path` is the list of poses; its `parts` are the lists of colours and of
    depth, then the pictures of the window, each once; its `window` counts ticks of the lists (`tum_lists.py`), and its
    meta["map"] names the sequence.

    video: the profile of the colours. lens: fx, fy, cx, cy in pixels, the middle of the first pixel is 0, 0; None: by
    the sequence's name (`LENSES`). depth_per_m: what a depth of one metre is in the pictures. up: the axis of the
    lists' world that points upwards; "-y" is for worlds that are the first camera's axes, as SLAM systems have them.
    """

    modality: ClassVar[str] = "trajectory"

    video: VideoProfile = PROFILES["train"]
    lens: Lens | None = None
    depth_per_m: float = 5000.0
    up: Literal["z", "y", "-y"] = "z"

    def __post_init__(self) -> None:
        TrajectoryEncoder(self.video)
        if self.lens is not None and (problem := problem_of_lens(*self.lens)):
            raise ValueError(f"lens is fx, fy, cx, cy in pixels or None; it {problem}")
        if not self.depth_per_m > 0:
            raise ValueError(f"depth_per_m={self.depth_per_m} must be positive")
        if self.up not in _UPRIGHT:
            raise ValueError(f"up={self.up!r} is none of {', '.join(_UPRIGHT)}")

    def in_profile(self, profile: VideoProfile) -> RgbdEncoder:
        """The same with colours in another profile."""
        return replace(self, video=profile)

    @property
    def profile(self) -> str:
        """The name of the video profile."""
        return self.video.name

    def prepared(self, sources: Mapping[str, Sequence[Source]]) -> RgbdEncoder:
        """The same encoder. Raises ValueError if the lens of a sequence is not known."""
        for sequence in {source.meta["map"] for of in sources.values() for source in of}:
            self.lens_of(sequence)
        return self

    def lens_of(self, sequence: str) -> Lens:
        """The lens of a sequence. Raises ValueError if it is not known."""
        found = re.search("|".join(LENSES), sequence)
        if self.lens is None and found is None:
            raise ValueError(
                f"the lens of the sequence {sequence!r} is not known, as its name has none of {', '.join(LENSES)}; say "
                "it with --set lens=[fx,fy,cx,cy], in pixels"
            )
        return self.lens or LENSES[found[0] if found else ""]

    def encode(self, source: Source) -> Encoded:
        """Encode a window of a sequence. Raises RejectError for pictures that cannot be used."""
        ticks = tum_ticks(source.parts[0], source.parts[1], source.path)
        first, stop = source.window or (0, 0)
        colours, depth, path = ticks.colours[first:stop], ticks.depth[first:stop], ticks.path[first:stop]
        if not colours:
            raise RejectError("check", f"has {len(ticks.colours)} moments and none from {first} to {stop}")
        files = dict(zip(dict.fromkeys((*colours, *depth)), source.parts[2:], strict=True))
        check_frames(len(colours))
        lasts(len(colours) / ticks.fps)
        fx, fy, cx, cy = self.lens_of(source.meta["map"])
        frames = [_colours(files[name]) for name in colours]
        stored = [_depth(files[name], frame.shape[:2]) for name, frame in zip(depth, frames, strict=True)]
        if len(sizes := {frame.shape for frame in frames}) != 1:
            raise RejectError("check", f"has frames of the sizes {sorted(sizes)}, not of one")
        walk = Walk(
            frames=frames,
            depth=[millimetres(one / self.depth_per_m) for one in stored],
            path=upright(path, self.up),
            lens=(fx, fy, cx + 0.5, cy + 0.5),
            fps=ticks.fps,
        )
        return TrajectoryEncoder(self.video).encoded(walk)


def upright(path: Floats, up: str) -> Floats:
    """Poses (n, 7) in a world whose axis `up` points upwards, in the same world turned so that z does."""
    turn = np.broadcast_to(np.array(_UPRIGHT[up]), (len(path), 4))
    return np.concatenate([turned(turn, path[:, :3]), product(turn, path[:, 3:])], axis=1)


def _colours(path: Path) -> UInt8s:
    """A picture of colours, uint8 (H, W, 3), RGB."""
    pixels = read_picture(path).pixels
    check_frame_size(pixels.shape[1], pixels.shape[0])
    return np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2))


def _depth(path: Path, size: tuple[int, ...]) -> UInt16s:
    """A picture of depth, uint16 (H, W), as stored."""
    check_source_file(path)
    data = path.read_bytes()
    header = read_header(data)
    if header is None or header.form != "png":
        raise RejectError("open", f"the depth {path.name} is no PNG")
    if (header.height, header.width) != size[:2]:
        raise RejectError(
            "check",
            f"the depth {path.name} has {header.width}x{header.height} pixels, its colours {size[1]}x{size[0]}; depth "
            "is registered to colours",
        )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        held = "cannot be decoded" if pixels is None else f"holds {pixels.dtype} {pixels.shape}"
        raise RejectError("decode", f"the depth {path.name} {held}; depth has 16 bits and one channel")
    return pixels.astype(np.uint16, copy=False)
