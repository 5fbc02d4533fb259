"""The data config of poses, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

from ....shards.format.component import component_of
from ....shards.members.poses import POSES
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import PoseBatch
from .camera import Cameras
from .clip import PoseClip
from .sample import KEPT, PoseDraft, PoseRequest, PoseSampler

PoseSource = Source[FieldsRequest[PoseRequest], FieldsDraft[PoseDraft], PoseBatch, PoseBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseData(DataConfig[PoseBatch]):
    """The data config of masked poses.

    clip: the frames of a clip. joints: 17, or 16 without the neck, as in part of the literature. cameras: the cameras
    that are drawn. flip: the probability that left and right change places; None is 0.5 when shuffled, else 0. mask: a
    mask of `maskstream.pipelines.masks` on (frame, joint) that needs no cues, or None; it is drawn for 2-D and for 3-D
    poses apart. views: the number of views per sample; they share the frames and differ in camera, flip and masks.
    component: the motion to read; None if a sample has only one. fields: other values of a sample for `batch.fields`
    (see fields.py).
    """

    modality: ClassVar[str] = "pose"

    clip: PoseClip = field(default_factory=PoseClip)
    joints: int = 17
    cameras: Cameras = field(default_factory=Cameras)
    flip: float | None = None
    mask: Mask | None = None
    views: int = 1
    component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)
        if self.joints not in KEPT:
            raise ValueError(f"joints={self.joints}: a skeleton has {' or '.join(map(str, KEPT))} joints")
        if self.flip is not None and not 0 <= self.flip <= 1:
            raise ValueError(f"flip={self.flip}: it is a probability, 0 to 1, or None")
        if self.mask is not None and self.mask.needs:
            needs = ", ".join(sorted(self.mask.needs))
            raise ValueError(f"{self.mask} needs {needs}, and poses have no cues; use a mask without cues")

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "pose", with the axes (frame, joint)."""
        return {"pose": pose_grid(self.clip.frames, self.joints)}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; raises ValueError if that is impossible."""
        flip = (0.5 if split.shuffle else 0.0) if self.flip is None else self.flip
        component = component_of(split.manifest.components, (POSES.name,), self.component).name
        return replace(self, flip=flip, component=component)

    def sampler(self, split: Split) -> PoseSampler:
        """The sampler of a split."""
        own = self.resolved(split)
        return PoseSampler(
            manifest=split.manifest,
            clip=own.clip,
            joints=own.joints,
            cameras=own.cameras,
            flip=own.flip or 0.0,
            grid=own.grids["pose"],
            pattern=own.mask,
            seed=split.seed,
            views=own.views,
            component=own.component or "",
        )

    def source(self, split: Split) -> PoseSource:
        """The source of a split, for a loader or a mixture."""
        own = self.resolved(split)
        grid = own.grids["pose"]
        clips = Source(
            sampler=self.sampler(split),
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            visible=visible_tokens((own.mask, grid), (own.mask, grid)),
            form={"clip.frames": own.clip.frames, "joints": own.joints, "views": own.views, "mask": own.mask},
        )
        return with_fields(clips, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[PoseBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)


def pose_grid(frames: int, joints: int) -> TokenGrid:
    """The (frame, joint) grid of a clip."""
    return TokenGrid(axes=("frame", "joint"), shape=(frames, joints), patch=(1, 1))
