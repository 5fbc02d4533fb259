"""Data config and loader of clips with audio."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from maskstream.pipelines.augment import Augmentation, CenterCrop, MultiScaleCrop
from maskstream.pipelines.augment.diffusion import LinearNoise
from maskstream.pipelines.augment.sound import SpecAugment
from maskstream.pipelines.augment.transform import FrameChanges, TransformChoice, find_transform
from maskstream.pipelines.flow.choice import AUTO, NONE, FlowChoice, find_flow
from maskstream.pipelines.flow.source import BatchFlow, SampleFlow
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.audio.data import statistics_of
from maskstream.pipelines.modalities.audio.reader import AudioClip, SoundReader, find_sound
from maskstream.pipelines.modalities.audio.rows import CUES as SOUND_CUES
from maskstream.pipelines.modalities.audio.rows import AudioRowMaker
from maskstream.pipelines.modalities.audio.spectrogram import (
    Features,
    Spectrogram,
    check_on_device,
    compute_spectrogram_grid,
    is_on_device,
)
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
from maskstream.pipelines.modalities.video.energy import check_energy
from maskstream.pipelines.modalities.video.flow import CUES, make_flow_source
from maskstream.pipelines.modalities.video.rows import ClipRowMaker
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import Finish, Unchanged
from maskstream.shards.arrays import Bools, Float64s
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import PositiveFloat, PositiveInt
from maskstream.shards.media.fbank import Fbank

from .batch import AudioVisualBatch
from .rows import AudioVisualPlan, AudioVisualRowMaker, HeardSpectrograms, SpectrogramNoise

AUDIO_CUES = SOUND_CUES | {"frames"}
VIDEO_CUES = SOUND_CUES | CUES
"""Mask inputs available for clips with audio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualSettings:
    """Settings of masked video clips with audio.

    Attributes:
        clip: Frames, stride and size of the clip, which is drawn from the frames that have audio.
        seconds: Length in seconds of the mono audio segment, which is centred on the clip. A segment that would
            reach beyond the audio is moved inside it, and shorter audio is padded with zeros;
            `batch.audio_start_s` is its start on the clock of the clip.
        video_mask: Mask of `maskstream.pipelines.masks` on (t, h, w), which may read frames and audio; by
            default none.
        audio_mask: Mask of `maskstream.pipelines.masks` on (time, freq), which may read frames and audio; it is
            drawn independently of video_mask. By default none.
        features: Spectrogram: `Fbank`, `LogMel` or `Librosa`, at the sample rate of the features.
        statistics: Mean and standard deviation of the features. Required for all features but the default
            filterbank.
        augment: Crop and flip of each view; by default the multi-scale crop when shuffled, else the centre
            crop.
        transform: Own change of the frames, of the waveform or of both (`maskstream.Transform`).
        spec_augment: Masked strips of the spectrogram (SpecAugment); by default none.
        spectrogram_noise: Noise on spectrograms, as in AVSiam; it needs on_device=False, and only its `roll`
            shifts the audio against its clip.
        flow: Source of motion, as in `VideoSettings`.
        noise: Noise schedule of diffusion models: the loader draws noise and a time for the targets of both
            masks (see `AudioVisualBatch`).
        views: Number of views per sample. They share the decoded frames and differ in crop and masks.
        tubelet: Frames per token.
        patch: Side of a token in pixels.
        audio_patch: Frames and bins of a token of audio.
        component: Name of the video to read, such as "cam0.mp4"; required only if a sample has several.
        sound: Name of the audio file to read; required only if a sample has several.
        fields: Other values of a sample to return in `batch.fields` (see `maskstream.pipelines.modalities.fields`).
        over_run: Settings that change over the run, each with a schedule, such as {"clip.frames": ...,
            "seconds": ...} (see `maskstream.pipelines.modalities.phases`).
        on_device: Whether spectrograms are computed for whole batches on the device; "auto" does so on CUDA
            where it can.
    """

    clip: VideoClip = field(default_factory=VideoClip)
    seconds: PositiveFloat = 10.24
    video_mask: Mask | None = None
    audio_mask: Mask | None = None
    features: Features = field(default_factory=Fbank)
    statistics: tuple[float, float] | None = None
    augment: Augmentation | None = None
    transform: TransformChoice = None
    spec_augment: SpecAugment | None = None
    spectrogram_noise: SpectrogramNoise | None = None
    flow: FlowChoice = AUTO
    noise: LinearNoise | None = None
    views: PositiveInt = 1
    tubelet: PositiveInt = 2
    patch: PositiveInt = 16
    audio_patch: tuple[PositiveInt, PositiveInt] = (16, 16)
    component: str | None = None
    sound: str | None = None
    fields: Fields = ()
    over_run: OverRun = field(default_factory=dict)
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)


@dataclass(frozen=True, kw_only=True)
class AudioVisualOptions(Options, AudioVisualSettings):
    """The options of `audiovisual_loader`."""


@takes_fields(AudioVisualOptions)
def audiovisual_loader(location: Splits, options: AudioVisualOptions) -> Loader[AudioVisualBatch]:
    """Open the loader of masked clips with audio: batch_size * views rows per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/vggsound/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `AudioVisualData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of videos with audio.
    """
    return AudioVisualData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualData(AudioVisualSettings, SplitConfig[AudioVisualPlan, AudioVisualBatch]):
    """Data config of masked video clips with audio. A token budget counts the visible tokens of both masks."""

    modality: ClassVar[str] = "audiovisual"
    alike: ClassVar[tuple[str, ...]] = (
        "clip.frames",
        "clip.size",
        "tubelet",
        "patch",
        "seconds",
        "features",
        "audio_patch",
        "noise",
    )
    changing: ClassVar[tuple[str, ...]] = (*CHANGING, "seconds")

    def validate(self) -> None:
        flow = find_flow(self.flow)
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True, waveform=True))
        check_length(self.clip)
        check_cues(self.video_mask, "clips with audio", VIDEO_CUES)
        check_cues(self.audio_mask, "sounds of clips", AUDIO_CUES)
        if isinstance(flow, BatchFlow):
            raise ValueError(
                f"flow={self.flow!r} is a BatchFlow, which only video loaders accept; pass 'codec', 'dis' or "
                "a SampleFlow"
            )
        if self.spectrogram_noise is not None and self.on_device is True:
            raise ValueError(
                "spectrogram_noise is added in the loader's threads, so it does not work with "
                "on_device=True; use on_device='auto', or leave out the noise"
            )
        check_on_device(self.features, self.on_device, self.video_mask, self.audio_mask)
        check_one_clock(self.clip, "sounds")
        _ = self.grids, self.phases

    @property
    def frames(self) -> int:
        """Number of frames of a spectrogram."""
        return round(self.seconds * self.features.sample_rate / self.features.shift)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grids of "video", with the axes (t, h, w), and of "audio", with the axes (time, freq)."""
        size = self.clip.size
        return {
            "video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch),
            "audio": compute_spectrogram_grid(self.frames, self.features.n_bins, self.audio_patch),
        }

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: A setting does not fit the split.
        """
        profile = split.manifest.info["profile"]
        clip = aligned(self.clip, profile)
        masks = (self.video_mask, self.audio_mask)
        component = component_of(split.manifest.components, ("video",), self.component).name
        check_energy(self.video_mask, clip, split.manifest, component)
        # A device transform of whole batches has one length.
        wanted = False if self.over_run and self.on_device == "auto" else self.on_device
        on_device = is_on_device(self.features, wanted, split.device, *masks) and self.spectrogram_noise is None
        return replace(
            self,
            clip=clip,
            statistics=self.statistics or statistics_of(split, self.features),
            augment=self.augment or (MultiScaleCrop() if split.shuffle else CenterCrop()),
            flow=make_flow_source(self.flow, self.video_mask, clip, profile) or NONE,
            component=component,
            sound=find_sound(split.manifest, self.sound),
            on_device=on_device,
        )

    def short(self, manifest: Manifest) -> Bools:
        """Return which samples have a video that is too short for the clip, bool (N,)."""
        return short_videos(manifest, self.component or "", self.clip)

    def fps(self, manifest: Manifest) -> Float64s:
        """Return the frames per second of each video, float64 (N,), 0 without one."""
        return manifest.component(self.component or "").facts["fps"].astype(np.float64)

    def chosen(self, split: Split) -> Split:
        """Drop short videos if the clip skips them."""
        return drop_short(split, self.component or "", self.clip, self.short)

    def spectrogram(self, split: Split) -> Spectrogram:
        """Create the spectrogram computation for a split."""
        mean, deviation = self.statistics or statistics_of(split, self.features)
        return Spectrogram(features=self.features, frames=self.frames, mean=mean, deviation=deviation)

    def rows(self, split: Split) -> AudioVisualRowMaker:
        """Create the row maker of a split."""
        transform = find_transform(self.transform, frames=True, waveform=True)
        clips = ClipRowMaker(
            component=self.component or "",
            clip=self.clip,
            grid=self.grids["video"],
            augment=self.augment or CenterCrop(),
            mask=self.video_mask,
            flow=self.flow if isinstance(self.flow, SampleFlow) else None,
            changes=FrameChanges(transform=transform),
        )
        sound = AudioClip(seconds=self.seconds, sample_rate=self.features.sample_rate)
        audio = AudioRowMaker(
            sounds=SoundReader(manifest=split.manifest, component=self.sound or "", clip=sound, seed=split.seed),
            spectrogram=self.spectrogram(split),
            grid=self.grids["audio"],
            mask=self.audio_mask,
            spec_augment=self.spec_augment,
            transform=transform,
            on_device=self.on_device is True,
            part="audio",
        )
        return AudioVisualRowMaker(clips=clips, audio=audio, noise=self.noise, spectrogram_noise=self.spectrogram_noise)

    def finish(self, split: Split) -> Finish[AudioVisualBatch, AudioVisualBatch]:
        """Create the device transform that computes spectrograms, if they are computed there."""
        return HeardSpectrograms(self.spectrogram(split)) if self.on_device is True else Unchanged()
