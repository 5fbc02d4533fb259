"""Data config and loader of trajectories."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, Unpack

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment import Augmentation, CenterCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.transform import FrameChanges, TransformChoice, find_transform
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.data import SplitConfig, check_cues, check_settings
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
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest

from .batch import TrajectoryBatch
from .rows import CAMERA, DEPTH, VIDEO, TrajectoryPlan, TrajectoryRowMaker

FRAMES = frozenset({"frames"})
CUES = FRAMES | {"depth"}
"""Mask inputs available for trajectories."""


class TrajectorySettings(Options, total=False):
    """The fields of `TrajectoryData`, with its defaults, and the options of all loaders."""

    clip: VideoClip
    ahead_s: float
    depth: bool
    mask: Mask | None
    augment: Augmentation | None
    colour: ColourJitter | None
    transform: TransformChoice
    views: int
    tubelet: int
    patch: int
    fields: Fields
    over_run: OverRun


def trajectory_loader(location: Splits, **settings: Unpack[TrajectorySettings]) -> Loader[TrajectoryBatch]:
    """The loader of masked clips of walks from a folder of shards (one split, such as
    `data/shards/vizdoom-walks/train`).

    location: the path or URL of a split, or (location, weight) pairs of several, which are mixed as `mix` says.
    settings: the fields of `TrajectoryData` (clip, ahead_s, depth, mask, ...), and the `Options` of all loaders
    (batch_size, seed, shuffle, workers, ...). batch_size is in samples per rank.

    Errors: ValueError for impossible settings, ShardError if the folder holds no finished split.
    """
    return TrajectoryData.opened(location, settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryData(SplitConfig[TrajectoryPlan, TrajectoryBatch]):
    """The data config of masked clips of walks.

    clip, views, tubelet, patch, colour, transform, fields: as in `VideoData`. ahead_s: how far ahead the waypoint is,
    in seconds; clips are drawn from the frames before. depth: whether depth is read. mask: a mask of
    `maskstream.pipelines.masks` on (t, h, w) that needs no cues but frames and depth, or None; it is one for colours
    and depth. augment: by default the centre crop, with a flip of 0.5 when shuffled; a flip mirrors depth, poses and
    waypoint too. over_run: settings that change over the run, such as {"clip.frames": ...} (see phases.py).
    """

    modality: ClassVar[str] = "trajectory"
    alike: ClassVar[tuple[str, ...]] = ("clip.frames", "clip.size", "tubelet", "patch", "depth")
    changing: ClassVar[tuple[str, ...]] = CHANGING
    version: ClassVar[int] = 2  # 2: poses have the quaternion with w >= 0

    clip: VideoClip = field(default_factory=lambda: VideoClip(frames=4, stride=4))
    ahead_s: float = 2.0
    depth: bool = True
    mask: Mask | None = None
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    transform: TransformChoice = None
    views: int = 1
    tubelet: int = 1
    patch: int = 16
    fields: Fields = ()
    over_run: OverRun = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True))
        check_settings(self, self.views)
        check_length(self.clip)
        if not 0 < self.ahead_s < 1e6:
            raise ValueError(f"ahead_s={self.ahead_s} must be above 0 seconds")
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
                raise ShardError(f"{split.manifest.store.location} has no {name}, but {held}; make its shards again")
        return replace(
            self,
            clip=aligned(self.clip, split.manifest.info["profile"]),
            augment=self.augment or CenterCrop(flip=0.5 if split.shuffle else 0.0),
        )

    def short(self, manifest: Manifest) -> npt.NDArray[np.bool_]:
        """Return which trajectories are too short for a clip and its waypoint, bool (N,)."""
        fps = manifest.component(VIDEO).facts["fps"]
        ahead = np.maximum(np.rint(self.ahead_s * fps), 1).astype(np.int64)
        return short_videos(manifest, VIDEO, self.clip, ahead)

    def fps(self, manifest: Manifest) -> npt.NDArray[np.float64]:
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
