"""What decides a batch of clips, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

from ....shards.config import NOT_IDENTITY
from ....shards.format.manifest import component_of
from ...augment import Augmentation, CenterCrop, MultiScaleCrop
from ...flow.source import AUTO, NONE, FlowChoice, SampleFlow, flow_named
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..backend import Backend, dali_serves
from ..data import DataConfig, check_views
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import VideoBatch
from .clip import VideoClip, aligned
from .flow import flow_source
from .sample import ClipRequest, VideoDraft, VideoSampler

VideoSource = Source[FieldsRequest[ClipRequest], FieldsDraft[VideoDraft], VideoBatch, VideoBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoData(DataConfig[VideoBatch]):
    """Masked clips.

    clip: the frames. mask: a pattern of `maskstream.pipelines.masks`, or None. augment: by default the multi-scale crop
    of VideoMAE when shuffled, the central crop otherwise; nothing is flipped unless it says so. flow: where motion
    comes from, "codec", "dis", "none", a SampleFlow or `package.module:Name` of one's own; "auto" is no flow for masks
    that need none, the codec's motion vectors where the shards allow it, else DIS. views: each sample is decoded once
    and gives so many clips with crops and masks of their own. tubelet (frames) and patch (pixels) are the extent of a
    token. component: the video that is read where a sample has several, such as
    "cam0.mp4"; by default the only one. fields: what else a sample holds, for `batch.fields` (see fields.py). backend:
    who decodes; "auto" is DALI on a CUDA device where it is installed and decodes the shards' codecs, where no flow is
    needed and no worker processes are asked for.
    """

    modality: ClassVar[str] = "video"

    clip: VideoClip = field(default_factory=VideoClip)
    mask: Mask | None = None
    augment: Augmentation | None = None
    flow: FlowChoice = AUTO
    views: int = 1
    component: str | None = None
    tubelet: int = 2
    patch: int = 16
    fields: Fields = ()
    backend: Backend = field(default="auto", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        check_views(self.views)
        flow_named(self.flow)
        _ = self.grids

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """That of "video", on the axes (t, h, w)."""
        size = self.clip.size
        return {"video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch)}

    def resolved(self, split: Split) -> Self:
        """The same with all chosen that is left to the split; ValueError where that cannot be."""
        profile = split.manifest.info["profile"]
        clip = aligned(self.clip, profile)
        return replace(
            self,
            clip=clip,
            augment=self.augment or (MultiScaleCrop() if split.shuffle else CenterCrop()),
            flow=flow_source(self.flow, self.mask, clip, profile) or NONE,
            component=component_of(split.manifest.components, ("video",), self.component).name,
        )

    def sampler(self, split: Split) -> VideoSampler:
        """What makes the clips of a split."""
        own = self.resolved(split)
        return VideoSampler(
            manifest=split.manifest,
            clip=own.clip,
            grid=own.grids["video"],
            augment=own.augment or CenterCrop(),
            mask_of=own.mask,
            flow=own.flow if isinstance(own.flow, SampleFlow) else None,
            seed=split.seed,
            views=own.views,
            component=own.component or "",
        )

    def source(self, split: Split) -> VideoSource:
        """The clips of a split, for a loader or a mixture."""
        return with_fields(self._clips(split, self.sampler(split)), split.manifest, self.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[VideoBatch]:
        """A loader of the clips of a split."""
        split, loading = split_of(location, self.modality, options)
        sampler = self.sampler(split)
        if dali_serves(self.backend, split.device, split.workers, suits=sampler.flow is None):
            from .dali import on_dali, undecodable

            if self.backend == "dali" or not undecodable(sampler, split.device):
                clips = on_dali(self._clips(split, sampler), sampler, split.device, split.threads)
                return Loader(with_fields(clips, split.manifest, self.fields), **loading)
        return Loader(self.source(split), **loading)

    def _clips(self, split: Split, sampler: VideoSampler) -> Source[ClipRequest, VideoDraft, VideoBatch, VideoBatch]:
        """The clips without fields."""
        own = self.resolved(split)
        return Source(
            sampler=sampler,
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), "dataset": split.manifest.fingerprint},
            visible=visible_tokens((own.mask, own.grids["video"])),
            form={
                "clip.frames": own.clip.frames,
                "clip.size": own.clip.size,
                "token grid": own.grids["video"],
                "views": own.views,
                "mask": own.mask,
                "flow": "no" if own.flow == NONE else "yes",
            },
        )
