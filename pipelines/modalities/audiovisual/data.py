"""The data config of clips with sound, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self, Unpack

from ....shards.config import NOT_IDENTITY
from ....shards.format.component import component_of
from ....shards.media.fbank import Fbank
from ...augment import Augmentation, CenterCrop, MultiScaleCrop
from ...augment.diffusion import LinearNoise
from ...augment.sound import SpecAugment
from ...flow.choice import AUTO, NONE, FlowChoice, flow_named
from ...flow.source import BatchFlow, SampleFlow
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..audio.clip import AudioClip
from ..audio.data import statistics_of
from ..audio.reader import sound_of
from ..audio.sample import AudioSampler
from ..audio.spectrogram import Features, Spectrogram, check_on_device, is_on_device, spectrogram_grid
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from ..video.clip import VideoClip, aligned
from ..video.flow import flow_source
from .batch import AudioVisualBatch
from .finish import HeardSpectrograms
from .sample import AudioVisualDraft, AudioVisualRequest, AudioVisualSampler, HeardVideoSampler
from .spectrogram_noise import SpectrogramNoise

AudioVisualSource = Source[
    FieldsRequest[AudioVisualRequest], FieldsDraft[AudioVisualDraft], AudioVisualBatch, AudioVisualBatch
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualData(DataConfig[AudioVisualBatch]):
    """The data config of masked video clips with sound.

    clip, augment, flow, views, tubelet, patch, fields: as in `VideoData`. Clips are drawn from the frames that have
    sound. seconds: the length of the sound segment, mono, centred on the clip. A segment that would reach beyond the
    sound is moved inside it, and a shorter sound is padded with zeros at the end; batch.audio_start_s is its start on
    the clip's clock. features, statistics, on_device, spec_augment: as in `AudioData`, at the features' sample rate;
    audio_patch is its `patch`. spectrogram_noise: AVSiam's augmentation of spectrograms; it needs on_device=False, and
    only its `roll` shifts sound against its clip.

    component, sound: the video and the sound to read, such as "cam0.mp4"; None if a sample has only one of each.

    video_mask (axes t, h, w) and audio_mask (axes time, freq) are drawn independently. noise: a noise schedule, for
    diffusion models; the loader draws noise and a time for the targets of both masks (see `AudioVisualBatch`). A token
    budget counts the visible tokens of both masks.
    """

    modality: ClassVar[str] = "audiovisual"

    clip: VideoClip = field(default_factory=VideoClip)
    seconds: float = 10.24
    video_mask: Mask | None = None
    audio_mask: Mask | None = None
    features: Features = field(default_factory=Fbank)
    statistics: tuple[float, float] | None = None
    augment: Augmentation | None = None
    spec_augment: SpecAugment | None = None
    spectrogram_noise: SpectrogramNoise | None = None
    flow: FlowChoice = AUTO
    noise: LinearNoise | None = None
    views: int = 1
    tubelet: int = 2
    patch: int = 16
    audio_patch: tuple[int, int] = (16, 16)
    component: str | None = None
    sound: str | None = None
    fields: Fields = ()
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        flow = flow_named(self.flow)
        check_settings(self, self.views)
        if isinstance(flow, BatchFlow):
            raise ValueError(
                f"flow={self.flow!r} is a BatchFlow, which only loaders of video take; give 'codec', 'dis' or a "
                "SampleFlow"
            )
        if self.spectrogram_noise is not None and self.on_device is True:
            raise ValueError(
                "spectrogram_noise is added in the loader's threads, got on_device=True; use on_device='auto', "
                "or leave out the noise"
            )
        check_on_device(self.features, self.on_device)
        _ = self.grids

    @property
    def frames(self) -> int:
        """The number of frames of a spectrogram."""
        return round(self.seconds * self.features.sample_rate / self.features.shift)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grids of "video", with the axes (t, h, w), and of "audio", with the axes (time, freq)."""
        size = self.clip.size
        return {
            "video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch),
            "audio": spectrogram_grid(self.frames, self.features.n_bins, self.audio_patch),
        }

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; raises ValueError if that is impossible."""
        profile = split.manifest.info["profile"]
        clip = aligned(self.clip, profile)
        on_device = is_on_device(self.features, self.on_device, split.device) and self.spectrogram_noise is None
        return replace(
            self,
            clip=clip,
            statistics=self.statistics or statistics_of(split, self.features),
            augment=self.augment or (MultiScaleCrop() if split.shuffle else CenterCrop()),
            flow=flow_source(self.flow, self.video_mask, clip, profile) or NONE,
            component=component_of(split.manifest.components, ("video",), self.component).name,
            sound=sound_of(split.manifest, self.sound),
            on_device=on_device,
        )

    def sampler(self, split: Split) -> AudioVisualSampler:
        """The sampler of a split."""
        own = self.resolved(split)
        mean, deviation = own.statistics or statistics_of(split, own.features)
        video = HeardVideoSampler(
            manifest=split.manifest,
            clip=own.clip,
            grid=own.grids["video"],
            augment=own.augment or CenterCrop(),
            pattern=own.video_mask,
            flow=own.flow if isinstance(own.flow, SampleFlow) else None,
            seed=split.seed,
            views=own.views,
            component=own.component or "",
            sound=own.sound or "",
        )
        audio = AudioSampler(
            manifest=split.manifest,
            clip=AudioClip(seconds=own.seconds, sample_rate=own.features.sample_rate),
            spectrogram=Spectrogram(features=own.features, frames=own.frames, mean=mean, deviation=deviation),
            grid=own.grids["audio"],
            pattern=own.audio_mask,
            roll_gain=None,
            spec_augment=own.spec_augment,
            mixup=None,
            seed=split.seed,
            views=own.views,
            on_device=own.on_device is True,
            part="audio",
            component=own.sound or "",
        )
        return AudioVisualSampler(video=video, audio=audio, noise=own.noise, spectrogram_noise=own.spectrogram_noise)

    def source(self, split: Split) -> AudioVisualSource:
        """The source of a split, for a loader or a mixture."""
        own, sampler = self.resolved(split), self.sampler(split)
        grids, on_device = own.grids, sampler.audio.on_device
        clips = Source(
            sampler=sampler,
            finish=HeardSpectrograms(sampler.audio.spectrogram) if on_device else Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            visible=visible_tokens((own.video_mask, grids["video"]), (own.audio_mask, grids["audio"])),
            form={
                "clip.frames": own.clip.frames,
                "clip.size": own.clip.size,
                "video grid": grids["video"],
                "video mask": own.video_mask,
                "flow": "no" if own.flow == NONE else "yes",
                "seconds": own.seconds,
                "features": own.features,
                "audio grid": grids["audio"],
                "audio mask": own.audio_mask,
                "views": own.views,
                "noise": own.noise,
                "spec_augment": "yes" if own.spec_augment else "no",
                "on_device": on_device,
            },
        )
        return with_fields(clips, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[AudioVisualBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)
