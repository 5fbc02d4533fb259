"""The data config of video, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self, Unpack, get_args

import torch

from ....shards.config import NOT_IDENTITY
from ....shards.format.component import component_of
from ...augment import Augmentation, CenterCrop, MultiScaleCrop
from ...augment.colour import ColourJitter
from ...flow.choice import AUTO, NONE, FlowChoice, flow_named
from ...flow.source import BatchFlow, FlowSource, SampleFlow
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Composed, Finish, Unchanged
from ...stream.source import Source
from ..backend import Backend, dali_serves
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import VideoBatch
from .clip import VideoClip, aligned
from .decoders import faster_with_dali
from .flow import flow_source
from .flow_finish import FlowFinish
from .packing import unsuited
from .sample import ClipRequest, VideoDraft, VideoSampler
from .yuv import Output, PlanesFinish

VideoSource = Source[FieldsRequest[ClipRequest], FieldsDraft[VideoDraft], VideoBatch, VideoBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoData(DataConfig[VideoBatch]):
    """The data config of masked video clips.

    clip: frames, stride and size. mask: a mask of `maskstream.pipelines.masks`, or None. augment: by default VideoMAE's
    multi-scale crop when shuffled, else the centre crop; no default flips. colour: colour jitter, the same for all
    frames of a view, by default none. flow: the source of motion: "codec", "dis", "lk",
    "none", a SampleFlow, a BatchFlow (computed on the batch's device) or `package.module:Name` of one's own; "auto"
    makes no flow if the mask needs none, else takes the codec's motion vectors if the shards allow it, else DIS.
    views: the number of clips per sample; they share the decoded frames and differ in crop and mask. tubelet (frames)
    and patch (pixels): the size of a token. component: the video to read, such as "cam0.mp4"; None if a sample has only
    one. fields: other values of a sample for `batch.fields` (see fields.py). backend: the decoder; "auto" is DALI on a
    CUDA device if `make gpu` has passed on this card and found DALI to be the fastest, DALI decodes the shards' codecs,
    and neither a SampleFlow nor colour jitter is used; else the CPU. The log says which and why. DALI's pixels differ
    from the CPU's by a level or two, so it is part of the identity. decoders: a file of `maskstream bench --decode`
    (decoders.py), by default this user's; if it has speeds of this machine, "auto" gives DALI the formats that it
    decodes faster, and these are part of the identity. output: "yuv" hands cropped YUV planes to the device, which
    resizes and converts them (yuv.py): less work for CPUs, less to copy; pixels differ from those of "rgb" by at most 2
    levels, so it is part of the identity.
    """

    modality: ClassVar[str] = "video"

    clip: VideoClip = field(default_factory=VideoClip)
    mask: Mask | None = None
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    flow: FlowChoice = AUTO
    views: int = 1
    component: str | None = None
    tubelet: int = 2
    patch: int = 16
    fields: Fields = ()
    backend: Backend = field(default="auto", metadata=NOT_IDENTITY)
    output: Output = field(default="rgb", metadata=NOT_IDENTITY)
    decoders: str | None = field(default=None, metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        flow_named(self.flow)
        check_settings(self, self.views)
        if self.backend == "dali" and self.colour is not None:
            raise ValueError("colour jitter is made on the CPU, and backend='dali' is not; leave colour or backend out")
        if self.output not in get_args(Output):
            raise ValueError(f"output={self.output!r}; legal are 'rgb' and 'yuv'")
        if self.output == "yuv" and (self.colour is not None or self.backend == "dali"):
            raise ValueError(
                "output='yuv' leaves the conversion to RGB to the device, where neither colour jitter nor DALI is; use "
                "output='rgb'"
            )
        if self.decoders is not None and (self.backend != "auto" or self.output != "rgb"):
            raise ValueError(
                f"decoders={self.decoders!r} says what backend='auto' decodes with DALI to RGB; leave it out with "
                f"backend={self.backend!r}, output={self.output!r}"
            )
        _ = self.grids

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "video", with the axes (t, h, w)."""
        size = self.clip.size
        return {"video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch)}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; raises ValueError if that is impossible."""
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
        """The sampler of a split."""
        own = self.resolved(split)
        return VideoSampler(
            manifest=split.manifest,
            clip=own.clip,
            grid=own.grids["video"],
            augment=own.augment or CenterCrop(),
            colour=own.colour,
            pattern=own.mask,
            flow=own.flow if isinstance(own.flow, FlowSource) else None,
            seed=split.seed,
            views=own.views,
            component=own.component or "",
            output=own.output,
        )

    def source(self, split: Split) -> VideoSource:
        """The source of a split, for a loader or a mixture."""
        return with_fields(self._clips(split, self.sampler(split)), split.manifest, self.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[VideoBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        sampler = self.sampler(split)
        formats = self._measured(sampler, split.device)
        suited = partial(unsuited, sampler, split.device)
        if self.output == "rgb" and dali_serves(self.backend, split.device, suited, formats):
            from .dali import on_dali

            clips = on_dali(self._clips(split, sampler), sampler, split.device, split.threads, formats)
            return Loader(with_fields(clips, split.manifest, self.fields), **loading)
        return Loader(self.source(split), **loading)

    def _measured(self, sampler: VideoSampler, device: torch.device) -> frozenset[str] | None:
        """The formats of the shards that "auto" gives to DALI; None for another backend, or if nothing was measured."""
        if self.backend != "auto" or self.output != "rgb":
            return None
        codecs = sampler.manifest.components[sampler.component].words["codec"].names
        return faster_with_dali(self.decoders, device, codecs)

    def _clips(self, split: Split, sampler: VideoSampler) -> Source[ClipRequest, VideoDraft, VideoBatch, VideoBatch]:
        """The source of clips without fields."""
        own = self.resolved(split)
        finish: Finish[VideoBatch, VideoBatch] = Unchanged()
        flow: object = "no" if own.flow == NONE else "yes"
        if isinstance(own.flow, BatchFlow):
            if reason := own.flow.missing(split.device):
                raise ValueError(f"flow={own.flow}: {reason}; use flow='lk'")
            finish, flow = FlowFinish(flow=own.flow, pattern=own.mask, grid=own.grids["video"]), own.flow
        if self.output == "yuv":
            if isinstance(own.flow, SampleFlow):
                raise ValueError(
                    f"output='yuv' with flow={own.flow}: a SampleFlow needs RGB while a sample is made; use "
                    "output='rgb', a BatchFlow, or flow='none' with a mask that needs none"
                )
            planes = PlanesFinish(size=own.clip.size)
            finish = planes if isinstance(finish, Unchanged) else Composed(planes, finish)
        return Source(
            sampler=sampler,
            finish=finish,
            samples=split.samples,
            identity={
                "data": own.to_dict(identity=True),
                **({"output": "yuv"} if self.output == "yuv" else {}),
                **split.identity,
            },
            visible=visible_tokens((own.mask, own.grids["video"])),
            form={
                "clip.frames": own.clip.frames,
                "clip.size": own.clip.size,
                "token grid": own.grids["video"],
                "views": own.views,
                "mask": own.mask,
                "flow": flow,
                "output": own.output,
            },
        )
