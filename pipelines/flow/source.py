"""Flow sources: configs that compute the flow of clips.

A `SampleFlow` computes the flow of one clip on the CPU while its sample is created. A `BatchFlow` computes the flow of
a whole batch on its device; masks that follow flow are drawn afterwards.

Sources are configs, as masks are, so user-defined ones are set, saved and compared like built-in ones. A source itself
reports why it cannot be used with a profile, stride and alignment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from maskstream.pipelines.augment.crop import Crop
from maskstream.shards.arrays import Bools, Float32s, Int64s, UInt8s
from maskstream.shards.config import Config
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE, ANCHORED

from .base import ClipFlow, grid_shape, with_cuts
from .codec import STRIDES, VANISHED, Motion, collect_trail, compute_codec_flows, steps_between
from .cuts import clip_cuts, read_stored_cuts
from .dis import Preset, check_search, dis_flow

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KERNELS = ("maskstream.pipelines.flow.cells",)

CONTRAST = 8.0
"""Levels added to a cell's contrast when normalising errors, so that flat cells are not over-weighted."""


def confidence(clip: UInt8s, vectors: Float32s, valid: Bools) -> Float32s:
    """Measure how well the earlier frame, warped along the flow, explains each cell: float32 (T-1, h, w) in [0, 1].

    It is 1 minus the mean grey difference relative to the cell's contrast, and 0 where the source had no vector.

    Args:
        clip: uint8 (T, H, W, 3), RGB.
        vectors: As in `ClipFlow`.
        valid: As in `ClipFlow`.
    """
    import cv2

    height, width = clip.shape[1:3]
    rows, columns = valid.shape[1:]
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]).astype(np.float32)
    y, x = np.indices((height, width), dtype=np.float32)
    found = np.empty(valid.shape, dtype=np.float32)
    for pair, moves in enumerate(vectors):
        dense: Any = cv2.resize(moves, (width, height), interpolation=cv2.INTER_LINEAR)
        moved = cv2.remap(
            grey[pair], x + dense[..., 0], y + dense[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        now = grey[pair + 1]
        mean = cv2.resize(cv2.resize(now, (columns, rows), interpolation=cv2.INTER_AREA), (width, height))
        error, contrast = (
            cv2.resize(np.abs(now - other), (columns, rows), interpolation=cv2.INTER_AREA) for other in (moved, mean)
        )
        found[pair] = np.clip(1 - error / (contrast + CONTRAST), 0, 1) * valid[pair]
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedClip:
    """One view of a clip, uint8 (T, H, W, 3), with its origin in the video.

    Attributes:
        pixels: uint8 (T, H, W, 3), RGB.
        crop: Crop of the source frames that `pixels` show.
        source: Width and height of the source frames.
        frames: int64 (T,): frame numbers.
        vectors: Motion by frame number, for the frames requested by `vectors_of` that have any: the decoder's vectors,
            or the stored flow into the first frame of a GOP.
        starts: By frame number, whether a scene starts within the ANCHOR_STRIDE frames up to it, where stored.
    """

    pixels: UInt8s
    crop: Crop
    source: tuple[int, int]
    frames: Int64s
    vectors: Mapping[int, Motion]
    starts: Mapping[int, bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSource(Config, ABC):
    """Base class of `SampleFlow` and `BatchFlow`; fields are settings only."""

    @property
    def title(self) -> str:
        """Display name."""
        return self.kind()

    def unfit(self, profile: str, *, stride: int, align: int) -> str | None:
        """Return why clips with this stride and alignment from shards of this profile are not supported; None if they
        are.
        """
        return None

    def missing(self, device: torch.device) -> str | None:
        """Return which requirement is missing to compute flow on a device; None if none is."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleFlow(FlowSource):
    """Computes the flow of clips, one view at a time, in the threads that create samples.

    It is called from many threads at once. All clips of a batch have the same grid.
    """

    def vectors_of(self, frames: Int64s) -> Int64s:
        """Return the numbers of the frames whose motion vectors are needed for a clip of the frames `frames` (T,); by
        default none.

        They lie between the first and last frame of the clip, and are also decoded.
        """
        return frames[:0]

    @abstractmethod
    def of_clip(self, clip: DecodedClip) -> ClipFlow:
        """Compute the backward flow of one view."""

    def of_each(self, clips: Sequence[DecodedClip]) -> list[ClipFlow]:
        """Compute the backward flow of several views; by default one by one."""
        return [self.of_clip(clip) for clip in clips]

    def cuts(self, clip: DecodedClip, flow: ClipFlow) -> Bools:
        """Detect scene cuts between the frames of each pair, bool (T-1,); by default with cuts.py.

        `flow` is the result of `of_clip` for the clip.
        """
        return clip_cuts(clip.pixels, flow.vectors)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFlow(FlowSource):
    """Computes the flow of a batch of clips at once, on the batch's device, in the process that uses the batch.

    A clip's flow must not depend on the other clips of the batch, so that masks that follow it are the same at every
    topology. Network weights are not settings: cache a network per settings and device in a function with
    `functools.cache`.
    """

    @abstractmethod
    def of_clips(self, clips: Tensor) -> Tensor:
        """Compute the backward flow of clips uint8 (B, T, H, W, 3), RGB: floats (B, T-1, 2, h, w), x then y, on their
        device.

        It is in pixels of the clips, on a grid of any size, as in `Flow`. Called without gradients.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec(SampleFlow):
    """Motion vectors of the video stream (see codec.py), in cells of about `cell` x `cell` pixels.

    At strides 8 and 12, the vectors of two or three frames are concatenated. Clips whose frames were not predicted from
    each other use DIS flow, and so do pairs with neither vectors nor stored flow.

    Attributes:
        cell: Approximate side of a cell in pixels.
        confidence: Compute `Flow.confidence`, which requires warping all pixels along the flow.
    """

    version: ClassVar[int] = 2  # 2: GOPs have flow into them, strides of 8 and 12

    cell: int = 8
    confidence: bool = False

    def validate(self) -> None:
        grid_shape(self.cell, self.cell, self.cell)

    def vectors_of(self, frames: Int64s) -> Int64s:
        """Return all frames on the way from the last of the frames (T,) to the first, int64 (n,)."""
        steps = steps_between(frames)
        return np.arange(frames[0] + ANCHOR_STRIDE, frames[-1] + 1, ANCHOR_STRIDE) if steps else frames[:0]

    @property
    def title(self) -> str:
        """Display name."""
        return "the codec's motion vectors"

    def unfit(self, profile: str, *, stride: int, align: int) -> str | None:
        """Return why not; motion vectors connect sampled frames only at some strides of some profiles."""
        if profile in ANCHORED and stride in STRIDES and align % ANCHOR_STRIDE == 0:
            return None
        return (
            f"motion vectors can serve as flow only in the profiles {' and '.join(ANCHORED)}, at strides of "
            f"{', '.join(map(str, STRIDES))} and an align of {ANCHOR_STRIDE} or a multiple of it"
        )

    def cuts(self, clip: DecodedClip, flow: ClipFlow) -> Bools:
        """Detect cuts in clips without stored ones, bool (T-1,): only pairs in which hardly any cell has a vector are
        examined, along DIS flow.
        """
        found = np.zeros(len(flow.vectors), dtype=np.bool_)
        for pair in np.flatnonzero(flow.valid.mean((1, 2)) < VANISHED).tolist():
            pixels, vectors = clip.pixels[pair : pair + 2], flow.vectors[pair : pair + 1]
            if flow.valid[pair].any():  # else it is DIS flow
                vectors = dis_flow(pixels, cell=self.cell).vectors
            found[pair] = clip_cuts(pixels, vectors)[0]
        return found

    def of_clip(self, clip: DecodedClip) -> ClipFlow:
        """Compute the flow of one view, with stored cuts if there are any."""
        return self.of_each([clip])[0]

    def of_each(self, clips: Sequence[DecodedClip]) -> list[ClipFlow]:
        """Compute the flow of several views; clips of the same kind are processed at once, which is cheaper."""
        kinds = {(clip.source, clip.pixels.shape, steps_between(clip.frames)) for clip in clips}
        if len(kinds) > 1:
            return [self.of_clip(clip) for clip in clips]
        ((source, (_, *size, _), steps),) = kinds
        cuts = [read_stored_cuts(clip.frames, clip.starts) for clip in clips]
        if steps:
            made = compute_codec_flows(
                [collect_trail(clip.frames, clip.vectors, steps) for clip in clips],
                [clip.crop for clip in clips],
                [clip.frames for clip in clips],
                [clip.pixels for clip in clips],
                cuts,
                source=source,
                size=(size[0], size[1]),
                cell=self.cell,
                steps=steps,
            )
        else:
            made = [dis_flow(clip.pixels, cell=self.cell) for clip in clips]
        if self.confidence:
            made = [
                flow._replace(confidence=confidence(clip.pixels, flow.vectors, flow.valid))
                for clip, flow in zip(clips, made, strict=True)
            ]
        return [flow if of is None else with_cuts(flow, of) for flow, of in zip(made, cuts, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dis(SampleFlow):
    """OpenCV's dense inverse search on the clip's pixels; see `dis_flow`.

    Attributes:
        cell: Approximate side of a cell in pixels.
        preset: OpenCV's preset.
        scale: Finest search level as a fraction of the clip's size; None is 64 pixels on the shorter side.
    """

    version: ClassVar[int] = 2  # 2: the finest level of the search has 64 pixels, before 28

    cell: int = 8
    preset: Preset = "ultrafast"
    scale: float | None = None

    def validate(self) -> None:
        grid_shape(self.cell, self.cell, self.cell)
        check_search(self.preset, self.scale)

    @property
    def title(self) -> str:
        """Display name."""
        return "DIS"

    def of_clip(self, clip: DecodedClip) -> ClipFlow:
        """Compute the flow of one view."""
        return dis_flow(clip.pixels, cell=self.cell, preset=self.preset, scale=self.scale)
