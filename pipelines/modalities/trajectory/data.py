"""Data config and loader of trajectories."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

import numpy as np

from maskstream.pipelines.augment import Augmentation, CenterCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.transform import FrameChanges, TransformChoice, find_transform
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.data import SplitConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.phases import OverRun
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.modalities.video.clip import (
    CHANGING,
    VideoClip,
    aligned,
    check_length,
    check_one_clock,
    drop_short,
    short_videos,
)
from maskstream.pipelines.modalities.video.rows import ClipRowMaker
from maskstream.pipelines.stream.loader import Loader
from maskstream.shards.arrays import Bools, Float64s
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import Bounds, PositiveInt

from .batch import TrajectoryBatch
from .rows import CAMERA, DEPTH, VIDEO, TrajectoryPlan, TrajectoryRowMaker

FRAMES = frozenset({"frames"})
CUES = FRAMES | {"depth"}
"""Mask inputs available for trajectories."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectorySettings:
    """Settings of masked clips of walks.

    Attributes:
        clip: Frames, stride and size of the clip.
        ahead_s: Seconds between a frame and its waypoint; clips are drawn from the frames that have one.
        depth: Whether depth is read.
        mask: Mask of `maskstream.pipelines.masks` on (t, h, w) that needs no input but frames and depth; colours
            and depth share it. By default none.
        augment: Crop and flip of each view; by default the centre crop, flipped with probability 0.5 when
            shuffled. A flip also mirrors depth, poses and waypoint.
        colour: Colour jitter, the same for all frames of a view; by default none.
        transform: Own change of pixels (`maskstream.Transform`), applied after colour jitter.
        views: Number of views per sample. They share the decoded frames and differ in crop and mask.
        tubelet: Frames per token.
        patch: Side of a token in pixels.
        fields: Other values of a sample that stand in `batch.fields` (see `maskstream.pipelines.modalities.fields`).
        over_run: Settings that change over the run, each with a schedule, such as {"clip.frames": ...} (see
            `pipelines/modalities/phases.py`).
    """

    clip: VideoClip = field(default_factory=lambda: VideoClip(frames=4, stride=4))
    ahead_s: Annotated[float, Bounds(above=0, below=10**6, note="seconds")] = 2.0
    depth: bool = True
    mask: Mask | None = None
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    transform: TransformChoice = None
    views: PositiveInt = 1
    tubelet: PositiveInt = 1
    patch: PositiveInt = 16
    fields: Fields = ()
    over_run: OverRun = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrajectoryOptions(Options, TrajectorySettings):
    """The options of `trajectory_loader`."""


@takes_fields(TrajectoryOptions)
def trajectory_loader(location: Splits, options: TrajectoryOptions) -> Loader[TrajectoryBatch]:
    """Open the loader of masked clips of walks: batch_size * views clips per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/vizdoom-walks/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `TrajectoryData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of trajectories.
    """
    return TrajectoryData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryData(TrajectorySettings, SplitConfig[TrajectoryPlan, TrajectoryBatch]):
    """Data config of masked clips of walks."""

    modality: ClassVar[str] = "trajectory"
    alike: ClassVar[tuple[str, ...]] = ("clip.frames", "clip.size", "tubelet", "patch", "depth")
    changing: ClassVar[tuple[str, ...]] = CHANGING
    version: ClassVar[int] = 2  # 2: poses have the quaternion with w >= 0

    def validate(self) -> None:
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True))
        check_length(self.clip)
        check_cues(self.mask, *(("walks", CUES) if self.depth else ("walks that are read with depth=False", FRAMES)))
        check_one_clock(self.clip, "poses and waypoints")
        _ = self.grids, self.phases

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grid of "video", with the axes (t, h, w), for colour and depth."""
        size = self.clip.size
        return {"video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch)}

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ShardError: The split lacks a component.
        """
        for name in (VIDEO, CAMERA, *((DEPTH,) if self.depth else ())):
            if name not in split.manifest.components:
                held = ", ".join(split.manifest.components) or "nothing"
                raise ShardError(
                    f"{split.manifest.store.location} has no {name}; it has {held}. Write its shards again"
                )
        return replace(
            self,
            clip=aligned(self.clip, split.manifest.info["profile"]),
            augment=self.augment or CenterCrop(flip=0.5 if split.shuffle else 0.0),
        )

    def short(self, manifest: Manifest) -> Bools:
        """Return which trajectories are too short for a clip and its waypoint, bool (N,)."""
        fps = manifest.component(VIDEO).facts["fps"]
        ahead = np.maximum(np.rint(self.ahead_s * fps), 1).astype(np.int64)
        return short_videos(manifest, VIDEO, self.clip, ahead)

    def fps(self, manifest: Manifest) -> Float64s:
        """Return the frames per second of each trajectory, float64 (N,), 0 without one."""
        return manifest.component(VIDEO).facts["fps"].astype(np.float64)

    def chosen(self, split: Split) -> Split:
        """Drop trajectories that are too short if the clip skips them."""
        return drop_short(split, VIDEO, self.clip, self.short)

    def rows(self, split: Split) -> TrajectoryRowMaker:
        """Create the row maker of a split."""
        clips = ClipRowMaker(
            component=VIDEO,
            clip=self.clip,
            grid=self.grids["video"],
            augment=self.augment or CenterCrop(),
            mask=self.mask,
            flow=None,
            changes=FrameChanges(self.colour, find_transform(self.transform, frames=True)),
        )
        return TrajectoryRowMaker(clips=clips, depth=self.depth, ahead_s=self.ahead_s)
