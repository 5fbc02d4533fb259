"""Data config and loader of clips with audio."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self, Unpack

import numpy as np
import numpy.typing as npt

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
from maskstream.pipelines.modalities.video.energy import check_energy
from maskstream.pipelines.modalities.video.flow import CUES, make_flow_source
from maskstream.pipelines.modalities.video.rows import ClipRowMaker
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import Finish, Unchanged
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.fbank import Fbank

from .batch import AudioVisualBatch
from .rows import AudioVisualPlan, AudioVisualRowMaker, HeardSpectrograms, SpectrogramNoise

AUDIO_CUES = SOUND_CUES | {"frames"}
VIDEO_CUES = SOUND_CUES | CUES
"""Mask inputs available for clips with audio."""


class AudioVisualSettings(Options, total=False):
    """The fields of `AudioVisualData`, with its defaults, and the options of all loaders."""

    clip: VideoClip
    seconds: float
    video_mask: Mask | None
    audio_mask: Mask | None
    features: Features
    statistics: tuple[float, float] | None
    augment: Augmentation | None
    transform: TransformChoice
    spec_augment: SpecAugment | None
    spectrogram_noise: SpectrogramNoise | None
    flow: FlowChoice
    noise: LinearNoise | None
    views: int
    tubelet: int
    patch: int
    audio_patch: tuple[int, int]
    component: str | None
    sound: str | None
    fields: Fields
    over_run: OverRun
    on_device: bool | Literal["auto"]


def audiovisual_loader(location: Splits, **settings: Unpack[AudioVisualSettings]) -> Loader[AudioVisualBatch]:
    """The loader of masked clips with sound of the split in a folder, such as `data/shards/vggsound/train`.

    location: the path or URL of a split, or (location, weight) pairs of several, which are mixed as `mix` says.
    settings: the fields of `AudioVisualData` (clip, seconds, video_mask, audio_mask, ...) and the options of all
    loaders (`Options`: batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of videos with sound.
    """
    return AudioVisualData.opened(location, settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualData(SplitConfig[AudioVisualPlan, AudioVisualBatch]):
    """The data config of masked video clips with sound.

    clip, augment, flow, views, tubelet, patch, fields: as in `VideoData`. Clips are drawn from the frames that have
    sound. seconds: the length of the sound segment, mono, centred on the clip. A segment that would reach beyond the
    sound is moved inside it, and a shorter sound is padded with zeros at the end; batch.audio_start_s is its start on
    the clip's clock. features, statistics, on_device, spec_augment: as in `AudioData`, at the features' sample rate;
    audio_patch is its `patch`. spectrogram_noise: AVSiam's augmentation of spectrograms; it needs on_device=False, and
    only its `roll` shifts sound against its clip.

    transform: a change of your own of the frames, of the waveform or of both (`maskstream.Transform`).
    component, sound: the video and the sound to read, such as "cam0.mp4"; None if a sample has only one of each.

    video_mask (axes t, h, w) and audio_mask (axes time, freq) are drawn independently; each may follow the frames and
    the sound. noise: a noise schedule, for diffusion models; the loader draws noise and a time for the targets of both
    masks (see `AudioVisualBatch`). A token budget counts the visible tokens of both masks. over_run: settings that
    change over the run, such as {"clip.frames": ..., "seconds": ...} (see phases.py).
    """

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

    clip: VideoClip = field(default_factory=VideoClip)
    seconds: float = 10.24
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
    views: int = 1
    tubelet: int = 2
    patch: int = 16
    audio_patch: tuple[int, int] = (16, 16)
    component: str | None = None
    sound: str | None = None
    fields: Fields = ()
    over_run: OverRun = field(default_factory=dict)
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        flow = find_flow(self.flow)
        object.__setattr__(self, "transform", find_transform(self.transform, frames=True, waveform=True))
        check_settings(self, self.views)
        check_length(self.clip)
        check_cues(self.video_mask, "clips with sound", VIDEO_CUES)
        check_cues(self.audio_mask, "sounds of clips", AUDIO_CUES)
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

    def short(self, manifest: Manifest) -> npt.NDArray[np.bool_]:
        """Return which samples have a video that is too short for the clip, bool (N,)."""
        return short_videos(manifest, self.component or "", self.clip)

    def fps(self, manifest: Manifest) -> npt.NDArray[np.float64]:
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
