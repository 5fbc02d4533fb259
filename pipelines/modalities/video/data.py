"""Video: its data config and its loader."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack, get_args

from maskstream.pipelines.augment import Augmentation, CenterCrop, MultiScaleCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.flow.choice import AUTO, NONE, FlowChoice, flow_named
from maskstream.pipelines.flow.source import BatchFlow, FlowSource, SampleFlow
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.backend import Backend, dali_serves
from maskstream.pipelines.modalities.data import SplitConfig, check_settings
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.rows import RowSource
from maskstream.pipelines.modalities.split import Options, Split
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import BatchSource, Composed, Finish, Unchanged
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.format.component import component_of

from .batch import VideoBatch
from .clip import VideoClip, aligned
from .decoders import faster_with_dali
from .flow import FlowFinish, flow_source
from .packing import PackedBatch, PackedPlan, PackedRowMaker, unsuited
from .rows import ClipPlan, ClipRowMaker
from .yuv import Output, PlanesFinish


class VideoSettings(Options, total=False):
    """The fields of `VideoData`, with its defaults, and the options of all loaders."""

    clip: VideoClip
    mask: Mask | None
    augment: Augmentation | None
    colour: ColourJitter | None
    flow: FlowChoice
    views: int
    component: str | None
    tubelet: int
    patch: int
    fields: Fields
    backend: Backend
    output: Output
    decoders: str | None


def video_loader(location: str | Path, **settings: Unpack[VideoSettings]) -> Loader[VideoBatch]:
    """The loader of masked clips from a folder of shards (one split, such as `data/shards/k400/train`).

    settings: the fields of `VideoData` (clip, mask, augment, flow, views, ...), and the `Options` of all loaders
    (batch_size, seed, shuffle, workers, ...). batch_size is in samples per rank.

    Errors: ValueError for impossible settings, ShardError if the folder holds no finished split.
    """
    return VideoData.opened(location, settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoData(SplitConfig[ClipPlan, VideoBatch]):
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
    alike: ClassVar[tuple[str, ...]] = ("clip.frames", "clip.size", "tubelet", "patch")

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

    def rows(self, split: Split) -> ClipRowMaker:
        """What makes the rows of a split."""
        return ClipRowMaker(
            component=self.component or "",
            clip=self.clip,
            grid=self.grids["video"],
            augment=self.augment or CenterCrop(),
            colour=self.colour,
            mask=self.mask,
            flow=self.flow if isinstance(self.flow, FlowSource) else None,
            output=self.output,
        )

    def finish(self, split: Split) -> Finish[VideoBatch, VideoBatch]:
        """The flow of whole batches, and pixels of planes. ValueError for flow that cannot be computed so."""
        flow: FlowFinish | None = None
        if isinstance(self.flow, BatchFlow):
            if reason := self.flow.missing(split.device):
                raise ValueError(f"flow={self.flow}: {reason}; use flow='lk'")
            flow = FlowFinish(flow=self.flow, mask=self.mask, grid=self.grids["video"])
        if self.output == "rgb":
            return flow or Unchanged()
        if isinstance(self.flow, SampleFlow):
            raise ValueError(
                f"output='yuv' with flow={self.flow}: a SampleFlow needs RGB while a sample is made; use "
                "output='rgb', a BatchFlow, or flow='none' with a mask that needs none"
            )
        planes = PlanesFinish(size=self.clip.size)
        return planes if flow is None else Composed(planes, flow)

    def loader_source(self, split: Split) -> BatchSource[Any, Any, Any, VideoBatch]:
        """The source of a split, decoded by DALI where `backend` says so."""
        own = self.resolved(split)
        rows = own.rows(split)
        formats = own._measured(split)
        suited = partial(unsuited, rows, split.manifest, split.device)
        if self.output == "rgb" and dali_serves(self.backend, split.device, suited, formats):
            return own._by_dali(rows, split, formats)
        return self.source(split)

    def _by_dali(
        self, clips: ClipRowMaker, split: Split, formats: frozenset[str] | None
    ) -> RowSource[PackedPlan, PackedBatch, VideoBatch]:
        """The source of clips that DALI decodes on the device. A BatchFlow computes flow of DALI's pixels.

        formats: those that DALI decodes, by default all that it can; threads decode the others. ValueError for what
        `unsuited` names.
        """
        from .dali import DaliFinish

        if reason := unsuited(clips, split.manifest, split.device):
            raise ValueError(f"backend='dali': {reason}; use backend='cpu'")
        decoding = DaliFinish(replace(self, fields=())._sampler(clips, split), self.clip, split.threads)
        finish = decoding if clips.flow is None else Composed(decoding, self.finish(split))
        return self._source(PackedRowMaker(clips=clips, device=split.device.type, formats=formats), finish, split)

    def _measured(self, split: Split) -> frozenset[str] | None:
        """The formats of the shards that "auto" gives to DALI; None for another backend, or if nothing was measured."""
        if self.backend != "auto" or self.output != "rgb":
            return None
        codecs = split.manifest.component(self.component or "").words["codec"].names
        return faster_with_dali(self.decoders, split.device, codecs)
