"""Config of a clip: frames, stride and size, and the handling of videos that are too short for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from maskstream.shards.arrays import Bools, Float64s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.limits import PositiveFloat, PositiveInt, PositiveInterval
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, ANCHORED

if TYPE_CHECKING:
    from maskstream.pipelines.modalities.split import Split

log = logging.getLogger(__name__)


CHANGING = ("clip.frames", "clip.size", "clip.stride", "clip.fps", "clip.seconds")
"""Clip settings that may change over a run."""
_SHORT = ["repeat", "loop", "skip", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoClip(Config):
    """Frames of a clip: their number, spacing and size.

    Attributes:
        frames: Number of frames.
        stride: Distance between frames, in frames of the video; ignored if `fps` or `seconds` is set.
        size: Height and width in pixels.
        start: "random" draws the first frame uniformly; "center" centres the clip in the video.
        align: The first frame is a multiple of this number. "gop" starts at the first frame of a GOP: no frames before
            the clip are read and decoded, but a video has far fewer distinct clips. None means 4 on shards of the
            profiles `train` and `fast` if `stride` is a multiple of 4 (no B-frame is then decoded, and at stride 4
            motion vectors are optical flow) or unused, else 1. With spacing in time, align=4 and frames at least 4
            video frames apart, all frame numbers are multiples of 4, at most two frames off.
        fps: Frames per second, instead of `stride`. The video's frames nearest in time are used, so frames repeat if
            the video has fewer.
        seconds: Length of the clip, with frames evenly spaced, instead of `stride`. A pair (low, high) together with
            `fps` draws the length, for samples of any length (`packed_loader`); `frames` and `size` are then ignored.
        short: Handling of videos with too few frames. "repeat" repeats the last frame at the stride, as in VideoMAE (by
            time, the video's last frame). "loop" restarts from the first frame. "skip" drops the sample, so that an
            epoch has fewer samples. "error" refuses the split before anything is read.
    """

    frames: PositiveInt = 16
    stride: PositiveInt = 4
    size: PositiveInt = 224
    start: Literal["random", "center"] = "random"
    align: PositiveInt | Literal["gop"] | None = None
    fps: PositiveFloat | None = None
    seconds: PositiveFloat | PositiveInterval | None = None
    short: Literal["repeat", "loop", "skip", "error"] = "repeat"

    def validate(self) -> None:
        if isinstance(self.seconds, tuple):
            if self.fps is None:
                raise ValueError(
                    f"VideoClip(seconds={self.seconds}): a drawn length needs fps, the frames per second; "
                    "pass both, such as seconds=(1, 4), fps=8"
                )
        elif self.fps is not None and self.seconds is not None:
            raise ValueError(
                f"VideoClip(fps={self.fps}, seconds={self.seconds}): pass one of them, or seconds=(low, high) to draw "
                "the length"
            )

    @property
    def shortest(self) -> Self:
        """Return the clip, or the shortest one (at least one frame) if the length is drawn."""
        if not isinstance(self.seconds, tuple):
            return self
        return self.of_frames(max(math.ceil(round(self.seconds[0] * (self.fps or 1), 6)), 1))

    def of_frames(self, frames: int) -> Self:
        """Return a clip with a fixed number of frames if the length is drawn."""
        return replace(self, frames=frames, seconds=None)

    @property
    def is_timed(self) -> bool:
        """True if frames are spaced in time."""
        return self.fps is not None or self.seconds is not None

    @property
    def spacing(self) -> str:
        """Spacing of frames for messages: "stride 4", "8 frames a second" or "over 2 s"."""
        if self.fps is not None or isinstance(self.seconds, tuple):
            return f"{self.fps:g} frames a second"
        return f"stride {self.stride}" if self.seconds is None else f"over {self.seconds:g} s"

    def step_s(self, fps: float) -> float:
        """Return the seconds between frames, in a video with `fps` frames per second."""
        if self.fps is not None or isinstance(self.seconds, tuple):
            return 1 / (self.fps or 1)
        return self.stride / fps if self.seconds is None else self.seconds / self.frames

    def offsets(self, fps: float) -> Int64s:
        """Return frame numbers relative to the first frame, int64 (frames,), in a video with `fps`
        frames per second.
        """
        steps: Int64s = np.arange(self.frames, dtype=np.int64)
        if not self.is_timed:
            steps *= self.stride
            return steps
        unit = self.unit(fps)
        steps[:] = np.floor(steps * (self.step_s(fps) * fps / unit) + 0.5)
        steps *= unit
        return steps

    def unit(self, fps: float) -> int:
        """Return the unit of the frame offsets of a clip spaced in time."""
        return self.align if isinstance(self.align, int) and self.step_s(fps) * fps >= self.align else 1

    def span(self, fps: float) -> int:
        """Return the number of video frames from the clip's first to its last frame, inclusive."""
        return int(self.offsets(fps)[-1]) + 1 if self.is_timed else (self.frames - 1) * self.stride + 1

    def most_frames(self, n_frames: Int64s, fps: Float64s) -> Int64s:
        """Return how many frames with this spacing fit into videos, int64 (N,).

        `n_frames` and `fps` are the videos' frame counts and frames per second, both (N,) and above 0.
        """
        if not self.is_timed:
            return (n_frames - 1) // self.stride + 1
        rates, rate = np.unique(fps, return_inverse=True)
        units, steps = (np.array(of)[rate.reshape(-1)] for of in zip(*map(self._grid, rates.tolist()), strict=True))
        # Frame k is the multiple of `unit` nearest to k steps; halves are rounded up.
        found: Int64s = np.ceil((((n_frames - 1) // units + 0.5) * units / steps).round(9)).astype(np.int64)
        return found

    def _grid(self, fps: float) -> tuple[int, float]:
        """Return the unit of offsets, and the spacing in frames of the video."""
        return self.unit(fps), self.step_s(fps) * fps

    def too_long(self, n_frames: Int64s, fps: Float64s) -> Bools:
        """Return for which videos the clip needs more frames than they have: bool (N,); both arguments are (N,)."""
        rates, rate = np.unique(fps, return_inverse=True) if self.is_timed else (np.ones(1), np.zeros(len(fps), int))
        spans = np.array([self.span(one) if one > 0 else 0 for one in rates.tolist()], np.int64)
        return n_frames < spans[rate]

    def numbers(self, n_frames: int, rng: np.random.Generator, gops: Int64s | None = None, *, fps: float) -> Int64s:
        """Draw the clip's frame numbers, int64 (frames,); they never decrease unless a short video is looped.

        Args:
            n_frames: Number of frames in the video.
            rng: Random generator.
            gops: int64 (GOPs,), first frame of each GOP, ascending from 0; only for align="gop".
            fps: Frames per second of the video.
        """
        offsets = self.offsets(fps)
        latest = max(n_frames - 1 - int(offsets[-1]), 0)
        if self.align == "gop":
            if gops is None:
                raise ValueError("VideoClip(align='gop') needs the first frames of the GOPs, got none; pass gops=")
            starts: Sequence[int] = gops[gops <= latest].tolist()
        else:
            starts = range(0, latest + 1, self.align or 1)
        start = starts[int(rng.integers(len(starts))) if self.start == "random" else (len(starts) - 1) // 2]
        if start + int(offsets[-1]) < n_frames:
            return offsets + start
        if self.short == "loop":
            return (start + offsets) % n_frames
        if self.is_timed:
            reachable = (n_frames - 1 - start) // self.unit(fps) * self.unit(fps)
        else:
            reachable = int(offsets[offsets < n_frames - start][-1])
        return np.minimum(offsets, reachable) + start


def check_length(clip: VideoClip) -> None:
    """Raise ValueError for a clip with a drawn length, for loaders that need equal lengths."""
    if isinstance(clip.seconds, tuple):
        raise ValueError(
            f"VideoClip(seconds={clip.seconds}) draws the length of each clip, but this loader needs clips of "
            "equal length; use frames= and fps=, or open the split with packed_loader"
        )


def start_multiple(clip: VideoClip, profile: str) -> int:
    """Return the number that the clip's first frame is a multiple of, in shards of `profile`."""
    if clip.align == "gop":
        return ANCHOR_STRIDE if profile in ANCHORED else 1
    return clip.align or 1


def aligned(clip: VideoClip, profile: str) -> VideoClip:
    """Replace `align=None` by its value for shards of `profile`."""
    if clip.align is not None:
        return clip
    anchored = profile in ANCHORED and (clip.is_timed or clip.stride % ANCHOR_STRIDE == 0)
    return replace(clip, align=ANCHOR_STRIDE if anchored else 1)


def short_videos(manifest: Manifest, component: str, clip: VideoClip, ahead: Int64s | None = None) -> Bools:
    """Find samples whose video has too few frames for the clip, from the manifest alone: bool (N,). Excludes removed
    samples.

    `ahead`, int64 (N,), is the number of frames of each video that must follow the clip.
    """
    video = manifest.component(component)
    n_frames = video.facts["n_frames"].astype(np.int64) - (0 if ahead is None else ahead)
    short: Bools = video.present & clip.too_long(n_frames, video.facts["fps"].astype(np.float64))
    short[manifest.removed] = False
    return short


def drop_short(split: Split, component: str, clip: VideoClip, short_of: Callable[[Manifest], Bools]) -> Split:
    """Drop the samples whose video is too short if the clip skips them.

    Args:
        split: Split to filter.
        component: Name of the video.
        clip: Clip settings.
        short_of: Returns which samples are too short, bool (N,).

    Raises:
        ValueError: The clip treats short videos as errors, or all are too short.
    """
    if clip.short not in ("skip", "error"):
        return split
    manifest = split.manifest
    short, n_frames = short_of(manifest), manifest.component(component).facts["n_frames"]
    if not short.any():
        return split
    shortest = int(np.argmin(np.where(short, n_frames, np.iinfo(np.int64).max)))
    told = (
        f"{short.sum()} of {len(short)} videos of {manifest.location} are shorter than the clip ({clip.frames} frames, "
        f"{clip.spacing}), the shortest {manifest.key(shortest)!r} with {n_frames[shortest]} frames"
    )
    if clip.short == "error":
        raise ValueError(f"{told}; use a shorter clip, or short='repeat', 'loop' or 'skip' (--set clip.short=skip)")
    if short.all():
        raise ValueError(f"{told}, so short='skip' leaves none; use a shorter clip, or short='repeat' or 'loop'")
    log.warning("%s; they are left out (short='skip'): an epoch has %d samples", told, (~short).sum())
    return replace(split, kept=np.flatnonzero(~short) if split.kept is None else split.kept[~short[split.kept]])


def check_one_clock(clip: VideoClip, what: str) -> None:
    """Raise ValueError for a clip that loops; `what` names the data that shares its clock."""
    if clip.short == "loop":
        raise ValueError(
            f"VideoClip(short='loop') goes back in time, but {what} cannot; expected 'repeat', 'skip' or 'error'"
        )
