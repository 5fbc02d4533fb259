"""Data config and loader of videos."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch

from maskstream.pipelines.augment import Augmentation, CenterCrop, MultiScaleCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.transform import FrameChanges, TransformChoice, find_transform
from maskstream.pipelines.flow.choice import AUTO, NONE, FlowChoice, find_flow
from maskstream.pipelines.flow.source import BatchFlow, FlowSource, SampleFlow
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.backend import explain_missing_dali, wants_dali
from maskstream.pipelines.modalities.data import SplitConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.phases import OverRun
from maskstream.pipelines.modalities.row_sampler import RowSource
from maskstream.pipelines.modalities.rows import RowMaker
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import BatchSource, Composed, Finish, Unchanged
from maskstream.shards.arrays import Bools, Float64s
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import PositiveInt

from .batch import TOKEN_OUTPUTS, Output, OutputChoice, VideoBatch
from .cameras import CamerasRowMaker, EachCamera, find_frames_of_all, has_one_rate, lacking, rates, with_all_cameras
from .clip import CHANGING, VideoClip, aligned, check_length, check_one_clock, drop_short, short_videos
from .clip_plan import FLOW_CUES, ClipPlan
from .decoders import check_agreement, choose_decoder, count_dali_threads
from .energy import check_energy
from .flow import CUES, FlowFinish, make_flow_source
from .hardware import BatchDecoder, HardwareFinish
from .packing import EncodedBatch, PackedPlan, PackedRowMaker, unsuited
from .rows import ClipRowMaker
from .torchcodec import TorchcodecDecoder
from .yuv import PlanesFinish

log = logging.getLogger(__name__)

VideoBackend = Literal["auto", "cpu", "dali", "torchcodec"]
HARDWARE = ("dali", "torchcodec")
"""Backends that decode on the device."""
_TOGETHER = 8
"""Number of clips that a process's threads fill in total at once: with few threads, each takes more, and no thread has
to wait for others.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSettings:
    """Settings of a masked clip that apply to any video.

    Attributes:
        clip: Frames, stride and size of the clip.
        mask: Mask of `maskstream.pipelines.masks` on (t, h, w); by default none.
        augment: Crop and flip of each view; by default VideoMAE's multi-scale crop when shuffled, else the
            centre crop.
        colour: Colour jitter, the same for all frames of a view; by default none.
        transform: Own change of pixels (`maskstream.Transform`), applied after colour jitter.
        flow: Source of motion: "codec", "dis", "lk", "none", a `SampleFlow`, a `BatchFlow` (computed on the device of
            the batch) or `package.module:Name` for your own. "auto" computes none if the mask needs none; otherwise it
            reads the motion vectors of the codec if the shards have them, else computes DIS flow.
        views: Number of views per sample. They share the decoded frames and differ in crop and mask.
        tubelet: Frames per token.
        patch: Side of a token in pixels.
        output: What the host computes. "rgb" is finished pixels. "yuv" sends cropped YUV planes to the device, which
            resizes and converts them to the same pixels. "tokens" computes only the visible tokens, and
            "tokens+targets" also those to reconstruct: `batch.tokens` has their pixels, and `batch.video` is empty.
            "auto" is "yuv" on a CUDA device unless something needs RGB on the CPU (a `SampleFlow`, colour jitter, a
            transform, a mask that reads frames), and "rgb" elsewhere.
    """

    clip: VideoClip = field(default_factory=VideoClip)
    mask: Mask | None = None
    augment: Augmentation | None = None
    colour: ColourJitter | None = None
    transform: TransformChoice = None
    flow: FlowChoice = AUTO
    views: PositiveInt = 1
    tubelet: PositiveInt = 2
    patch: PositiveInt = 16
    output: OutputChoice = field(default="auto", metadata=NOT_IDENTITY)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSettings(ClipSettings):
    """Settings of masked video clips.

    Attributes:
        component: Name of the video to read, such as "cam0.mp4"; required only if a sample has several. A tuple
            of names loads the clips of the same instants of several cameras (see `VideoBatch.cameras`), each
            with its own mask, from samples that have all of them; `fields` are of the frames of the first.
        shared_crops: Whether the cameras of a sample have the same crop, flip and colours, whatever their
            sizes.
        fields: Other values of a sample that stand in `batch.fields` (see `maskstream.pipelines.modalities.fields`).
        cycle: Number of epochs after which clips, crops and colours repeat, for every seed; masks never repeat.
            By default never.
        targets: Folder of the outputs of a frozen teacher (see `maskstream.pipelines.modalities.targets`). They require
            the decoder PyAV.
        over_run: Settings that change over the run, each with a schedule, such as {"clip.frames": ...} (see
            `pipelines/modalities/phases.py`).
        backend: Decoder. "cpu" is PyAV; "dali" is NVIDIA DALI, whose pixels differ by a level or two, so it belongs to
            the identity of a run; "torchcodec" is NVDEC through torchcodec, with the pixels of PyAV. "auto" is PyAV, or
            DALI on a CUDA device if it is estimated to deliver twice as many clips; the reason is logged.
    """

    component: str | tuple[str, ...] | None = None
    shared_crops: bool = True
    fields: Fields = ()
    cycle: PositiveInt | None = None
    targets: str | None = field(default=None, metadata=NOT_IDENTITY)
    over_run: OverRun = field(default_factory=dict)
    backend: VideoBackend = field(default="auto", metadata=NOT_IDENTITY)


@dataclass(frozen=True, kw_only=True)
class VideoOptions(Options, VideoSettings):
    """The options of `video_loader`."""


@takes_fields(VideoOptions)
def video_loader(location: Splits, options: VideoOptions) -> Loader[VideoBatch]:
    """Open the loader of masked clips: batch_size * views clips per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/k400/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `VideoData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of videos.
    """
    return VideoData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoData(VideoSettings, SplitConfig[ClipPlan, VideoBatch]):
    """Data config of masked video clips."""

    modality: ClassVar[str] = "video"
    alike: ClassVar[tuple[str, ...]] = ("clip.frames", "clip.size", "tubelet", "patch")
    changing: ClassVar[tuple[str, ...]] = CHANGING

    def validate(self) -> None:
        find_flow(self.flow)
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True))
        check_length(self.clip)
        _ = self.phases
        check_cues(self.mask, "videos", CUES)
        if isinstance(self.component, Sequence) and not isinstance(self.component, str):
            object.__setattr__(self, "component", tuple(self.component))
            if not self.component or len(set(self.component)) < len(self.component):
                raise ValueError(f"component={self.component}: list each video once, such as ('cam0.mp4', 'cam1.mp4')")
        if self.backend in HARDWARE and (change := self.changes.title):
            raise ValueError(f"{change} runs on the CPU, but backend={self.backend!r} does not; leave one of them out")
        if self.backend in HARDWARE and self.targets is not None:
            raise ValueError(
                f"targets= needs frames decoded by PyAV, but backend={self.backend!r} decodes differently; "
                "leave backend out"
            )
        if self.output in TOKEN_OUTPUTS and (self.mask is None or self.backend in HARDWARE):
            raise ValueError(
                f"output={self.output!r} creates only the tokens that a mask selects, on the CPU; pass a mask, "
                "and leave backend out"
            )
        if self.output == "yuv" and (change := self.changes.title or ("DALI" if self.backend == "dali" else "")):
            raise ValueError(
                f"output='yuv' leaves the conversion to RGB to the device, but {change} needs RGB before "
                "that; use output='rgb'"
            )
        if self.over_run and (self.backend in HARDWARE or self.output not in ("auto", "rgb")):
            raise ValueError(
                f"over_run changes the size of batches, but backend={self.backend!r} and "
                f"output={self.output!r} support only one size; leave them out"
            )
        _ = self.grids

    @property
    def changes(self) -> FrameChanges:
        """Changes of the pixels of a view."""
        return FrameChanges(self.colour, find_transform(self.transform, frames=True))

    def whole(self) -> Self:
        """Config that decodes whole clips where this one decodes tokens."""
        return replace(self, output="auto") if self.output in TOKEN_OUTPUTS else self

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grid of "video", with the axes (t, h, w)."""
        size = self.clip.size
        return {"video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch)}

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: A setting does not fit the split.
        """
        profile = split.manifest.info["profile"]
        clip = aligned(self.clip, profile)
        components = split.manifest.components
        if isinstance(self.component, tuple):
            named = [component_of(components, ("video",), one).name for one in self.component]
            component: str | tuple[str, ...] = tuple(named)
        else:
            component = component_of(components, ("video",), self.component).name
        one_rate = has_one_rate(split.manifest, component)
        first = component if isinstance(component, str) else component[0]
        check_energy(self.mask, clip, split.manifest, first, one_rate=one_rate)
        flow = make_flow_source(self.flow, self.mask, clip, profile, one_rate=one_rate) or NONE
        if self.output == "yuv" and split.device.type == "cpu":
            raise ValueError(
                "output='yuv' is meant for CUDA devices; on the device 'cpu' it costs six times as much as "
                "output='rgb'. Leave output out, or pass device='cuda'"
            )
        return replace(
            self,
            clip=clip,
            augment=self.augment or (MultiScaleCrop() if split.shuffle else CenterCrop()),
            flow=flow,
            output=self._output(flow, split.device),
            component=component,
        )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Components that are read, for a resolved config."""
        return (self.component or "",) if not isinstance(self.component, tuple) else self.component

    def _output(self, flow: FlowChoice, device: torch.device) -> Output:
        """Return the output of the sampler."""
        if self.output != "auto":
            return self.output
        if self.over_run:
            return "rgb"
        return "yuv" if device.type == "cuda" and not self._needs_rgb(flow) and self.backend != "dali" else "rgb"

    def _needs_rgb(self, flow: FlowChoice) -> str:
        """Return the name of the setting that needs RGB on the CPU; "" if none does."""
        if self.changes.title:
            return self.changes.title
        if isinstance(flow, SampleFlow):
            return f"flow={flow}"
        needs = frozenset() if self.mask is None else self.mask.needs
        drawn_later = isinstance(flow, BatchFlow) and needs & FLOW_CUES
        return str(self.mask) if "frames" in needs and not drawn_later else ""

    def short(self, manifest: Manifest) -> Bools:
        """Return which samples have a video that is too short for the clip, bool (N,)."""
        first, *others = self.cameras
        if not others:
            return short_videos(manifest, first, self.clip)
        missed = rates(manifest, first)[0] - find_frames_of_all(manifest, self.cameras)
        return short_videos(manifest, first, self.clip, missed) & ~lacking(manifest, self.cameras)

    def fps(self, manifest: Manifest) -> Float64s:
        """Return the frames per second of each video, float64 (N,), 0 without one."""
        return rates(manifest, self.cameras[0])[1]

    def chosen(self, split: Split) -> Split:
        """Drop short videos if the clip skips them."""
        if isinstance(self.flow, FlowSource):
            check_one_clock(self.clip, "masks and flow fields")
        if split.kept is not None:
            return split
        if isinstance(self.component, tuple):
            split = with_all_cameras(split, self.component)
        return drop_short(split, self.cameras[0], self.clip, self.short)

    def rows(self, split: Split) -> RowMaker[ClipPlan, VideoBatch]:
        """Create the row maker of a split."""
        output = self._output(self.flow, split.device)
        clips = self._clips(output, max(1, _TOGETHER // split.threads))
        if not isinstance(self.component, tuple):
            return clips
        others = (replace(clips, component=one, camera=one, shared=self.shared_crops) for one in self.component[1:])
        return CamerasRowMaker(first=clips, others=tuple(others))

    def _clips(self, output: Output, together: int = 1) -> ClipRowMaker:
        """Create the row maker of the only or first camera."""
        return ClipRowMaker(
            component=self.cameras[0],
            clip=self.clip,
            grid=self.grids["video"],
            augment=self.augment or CenterCrop(),
            changes=self.changes,
            mask=self.mask,
            flow=self.flow if isinstance(self.flow, FlowSource) else None,
            output=output,
            together=together,
        )

    def of_files(self, profile: str) -> tuple[ClipRowMaker, Finish[VideoBatch, VideoBatch]]:
        """Create the row maker and device transform for video files outside a split, on the CPU.

        They reproduce a shuffled loader with these settings on a split of this profile.

        Raises:
            ValueError: A setting requires a split.
        """
        device, clip = torch.device("cpu"), aligned(self.clip, profile)
        if isinstance(self.component, tuple) or self.fields or self.backend in HARDWARE or self.output == "yuv":
            raise ValueError(
                "component=(...), fields, backend='dali', backend='torchcodec' and output='yuv' work only "
                "with splits, but a file is a single video, decoded on the CPU; leave them out"
            )
        if self.mask is not None and "energy" in self.mask.needs:
            raise ValueError(f"{self.mask} follows stored energy, which only splits have; use energy='online'")
        flow = make_flow_source(self.flow, self.mask, clip, profile) or NONE
        own = replace(self, clip=clip, augment=self.augment or MultiScaleCrop(), flow=flow, component="video")
        if isinstance(flow, FlowSource):
            check_one_clock(clip, "masks and flow fields")
        own = replace(own, output=own._output(flow, device))
        return own._clips(own._output(flow, device)), own._finish(device)

    def finish(self, split: Split) -> Finish[VideoBatch, VideoBatch]:
        """Create the device transform of each camera's clips."""
        finish = self._finish(split.device)
        return finish if isinstance(finish, Unchanged) or not isinstance(self.component, tuple) else EachCamera(finish)

    def _finish(self, device: torch.device) -> Finish[VideoBatch, VideoBatch]:
        """Create the transform that computes the flow of whole batches and converts planes to pixels.

        Raises:
            ValueError: Flow cannot be computed in this way.
        """
        flow: FlowFinish | None = None
        if isinstance(self.flow, BatchFlow):
            if reason := self.flow.missing(device):
                raise ValueError(f"flow={self.flow}: {reason}; use flow='lk'")
            if self.mask is not None and self.mask.needs & FLOW_CUES and "energy" in self.mask.needs:
                raise ValueError(
                    f"{self.mask} follows stored energy and flow, but flow={self.flow} is computed after the "
                    "energy is discarded; use flow='codec' or 'dis'"
                )
            flow = FlowFinish(flow=self.flow, mask=self.mask, grid=self.grids["video"])
        if self.output in TOKEN_OUTPUTS and flow is not None:
            raise ValueError(
                f"output={self.output!r} with flow={self.flow}: a BatchFlow needs whole clips on the device; use "
                "output='rgb', or flow='codec' or 'dis'"
            )
        if self.output != "yuv":
            return flow or Unchanged()
        if isinstance(self.flow, SampleFlow):
            raise ValueError(
                f"output='yuv' with flow={self.flow}: a SampleFlow needs each sample in RGB; use "
                "output='rgb', a BatchFlow, or flow='none' with a mask that needs no flow"
            )
        if mask := self._needs_rgb(self.flow):
            raise ValueError(
                f"output='yuv' with mask={mask}, which needs the RGB frames of each sample; use output='rgb'"
            )
        planes = PlanesFinish(size=self.clip.size)
        return planes if flow is None else Composed(planes, flow)

    def source(self, split: Split) -> BatchSource[Any, Any, VideoBatch, VideoBatch]:
        """Create the source of a split decoded by PyAV, for a loader or a mixture.

        Raises:
            ValueError: Another backend is requested.
        """
        if self.backend in HARDWARE:
            raise ValueError(
                f"backend={self.backend!r} works with a single split, not with a mixture; leave backend out"
            )
        return SplitConfig.source(self, split)

    def loader_source(self, split: Split) -> BatchSource[Any, Any, Any, VideoBatch]:
        """Create the source of a split, decoded on the device if `backend` requests it or it is
        estimated to be faster.
        """
        if self.output == "rgb" and self.backend == "torchcodec":
            raise ValueError("backend='torchcodec' returns YUV planes, but output='rgb' asks for RGB; leave output out")
        own = self.resolved(split)
        if self.over_run:
            return own.source(split)
        if wants_dali(self.backend, "torchcodec") or self.backend == "torchcodec":
            return own._packed(split, self.backend)
        if self.output != "auto":
            return own.source(split)
        chosen = own._decoder(split) if split.device.type == "cuda" else "cpu"
        about = {"dataset": split.manifest.fingerprint, "seed": split.seed, **self.to_dict(identity=True)}
        check_agreement("DALI" if chosen == "dali" else "PyAV", json.dumps(about, sort_keys=True))
        return replace(own, output="rgb")._packed(split, "dali") if chosen == "dali" else own.source(split)

    def _decoder(self, split: Split) -> str:
        """Choose the backend of "auto" on a CUDA device; call on a resolved config."""
        if needs := self._needs_rgb(self.flow):
            log.info("PyAV converts to RGB in the loader for %s, because %s needs RGB there", split.device, needs)
            return "cpu"
        if self.backend == "cpu" or self.targets is not None:
            return "cpu"
        facts = split.manifest.component(self.cameras[0]).facts
        return choose_decoder(
            split.device,
            workers=split.workers,
            threads=split.threads,
            frames=self.clip.frames,
            pixels=float((facts["width"] * facts["height"]).mean()),
            unsuited=explain_missing_dali() or self._explain_unsuited(split, "dali"),
        )

    def _explain_unsuited(self, split: Split, backend: str) -> str:
        """Return why a backend cannot decode the clips on the device; "" if it can."""
        if isinstance(self.component, tuple):
            return f"it decodes one video of a sample, and component={self.component} names several"
        return unsuited(self._clips(self._output(self.flow, split.device)), split.manifest, split.device, backend)

    def _packed(self, split: Split, backend: str) -> RowSource[PackedPlan, EncodedBatch, VideoBatch]:
        """Create the source of clips that DALI or torchcodec decodes on the device; call on a resolved config.

        A BatchFlow computes flow from the decoded pixels.

        Raises:
            ValueError: The clips are not suited (see `unsuited`), or torchcodec is missing.
        """
        clips = self._clips(self._output(self.flow, split.device))
        if reason := self._explain_unsuited(split, backend):
            raise ValueError(f"backend={backend!r}: {reason}; use backend='cpu'")
        size, threads = self.clip.size, count_dali_threads(split.device)
        decoder: BatchDecoder
        if backend == "dali":
            from .dali import DaliDecoder

            decoder = DaliDecoder(self.views, size, threads)
        else:
            decoder = TorchcodecDecoder(size, threads)
        split = self.chosen(split)
        # It is called with sample numbers of the whole split.
        on_cpu = replace(self, fields=())._sampler(clips, replace(split, kept=None))
        decoding = HardwareFinish(on_cpu, size, decoder)
        finish = decoding if clips.flow is None else Composed(decoding, replace(self, output="rgb").finish(split))
        return self._source(PackedRowMaker(clips=clips, device=split.device.type), finish, split)
