"""The data config of walks, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

from ....shards.errors import ShardError
from ...augment import Augmentation, CenterCrop
from ...augment.colour import ColourJitter
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from ..video.clip import VideoClip, aligned
from .batch import TrajectoryBatch
from .sample import (
    CAMERA,
    DEPTH,
    VIDEO,
    TrajectoryDraft,
    TrajectoryRequest,
    TrajectorySampler,
    WalkVideoSampler,
)

TrajectorySource = Source[
    FieldsRequest[TrajectoryRequest], FieldsDraft[TrajectoryDraft], TrajectoryBatch, TrajectoryBatch
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryData(DataConfig[TrajectoryBatch]):
    """The data config of masked clips of walks.

    clip, views, tubelet, patch, colour, fields: as in `VideoData`. ahead_s: how far ahead the waypoint is, in seconds;
    clips are drawn from the frames before. depth: whether depth is read. mask: a mask of `maskstream.pipelines.masks`
    on (t, h, w) that needs no cues, or None; it is one for colours and depth. augment: by default the centre crop, with
    a flip of 0.5 when shuffled; a flip mirrors depth, poses and waypoint too.
    """

    modality: ClassVar[str] = "trajectory"
    version: ClassVar[int] = 2  # 2: poses have the quaternion with w >= 0

    clip: VideoClip = field(default_factory=lambda: VideoClip(frames=4, stride=4))
    ahead_s: float = 2.0
    depth: bool = True
    mask: Mask | None = None
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    views: int = 1
    tubelet: int = 1
    patch: int = 16
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)
        if not 0 < self.ahead_s < 1e6:
            raise ValueError(f"ahead_s={self.ahead_s} must be above 0 seconds")
        if self.mask is not None and self.mask.needs:
            raise ValueError(
                f"{self.mask} needs {', '.join(sorted(self.mask.needs))}, which walks have none of; use a mask without "
                "cues, such as masks.Tube() or masks.Random()"
            )
        _ = self.grids

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "video", with the axes (t, h, w), for colours and depth."""
        size = self.clip.size
        return {"video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch)}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; ShardError if it lacks a component."""
        for name in (VIDEO, CAMERA, *((DEPTH,) if self.depth else ())):
            if name not in split.manifest.components:
                held = ", ".join(split.manifest.components) or "nothing"
                raise ShardError(f"{split.manifest.store.location} has no {name}, but {held}; make its shards again")
        return replace(
            self,
            clip=aligned(self.clip, split.manifest.info["profile"]),
            augment=self.augment or CenterCrop(flip=0.5 if split.shuffle else 0.0),
        )

    def sampler(self, split: Split) -> TrajectorySampler:
        """The sampler of a split."""
        own = self.resolved(split)
        video = WalkVideoSampler(
            manifest=split.manifest,
            clip=own.clip,
            grid=own.grids["video"],
            augment=own.augment or CenterCrop(),
            colour=own.colour,
            pattern=own.mask,
            flow=None,
            seed=split.seed,
            views=own.views,
            component=VIDEO,
            ahead_s=own.ahead_s,
        )
        return TrajectorySampler(video=video, depth=own.depth)

    def source(self, split: Split) -> TrajectorySource:
        """The source of a split, for a loader or a mixture."""
        own = self.resolved(split)
        clips = Source(
            sampler=self.sampler(split),
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            visible=visible_tokens((own.mask, own.grids["video"])),
            form={
                "clip.frames": own.clip.frames,
                "clip.size": own.clip.size,
                "token grid": own.grids["video"],
                "depth": "yes" if own.depth else "no",
                "views": own.views,
                "mask": own.mask,
            },
        )
        return with_fields(clips, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[TrajectoryBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)
