"""Data configs and loaders of audio and of noisy mixtures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.augment.transform import TransformChoice, find_transform
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.backend import Backend, wants_dali
from maskstream.pipelines.modalities.data import SplitConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.phases import OverRun
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import Finish, Unchanged
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.format.data_errors import parsing
from maskstream.shards.format.dataset import DATASET_JSON
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import ASCENDING, PositiveInt
from maskstream.shards.media.fbank import STATISTICS, Fbank, compute_fbank_statistics

from .batch import AudioBatch, NoisyBatch
from .reader import AudioClip, SoundReader, find_sound
from .rows import CUES, AudioPlan, AudioRowMaker, MicrophoneLine, NoisyPlan, NoisyRowMaker, Spectrograms
from .spectrogram import Features, Spectrogram, check_on_device, compute_spectrogram_grid, is_on_device


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSettings:
    """Settings of masked audio.

    Attributes:
        clip: Length, sample rate and channels; by default 10.24 s of mono at 16 kHz, which results in 1,024 frames.
        mask: Mask of `maskstream.pipelines.masks` on (time, freq); by default none.
        features: Spectrogram: Kaldi's filterbank of 128 bins (`Fbank`), `LogMel` or `Librosa`.
        statistics: Mean and standard deviation of the features. Required for all features but the default
            filterbank, whose statistics are stored with the shards.
        roll_gain: Random shift and gain of the waveform; by default none.
        spec_augment: Masked strips of the spectrogram (SpecAugment); by default none.
        mixup: Mixture with another sample; by default none.
        transform: Own change of waveforms (`maskstream.Transform`), applied after roll, gain and mixup but
            before the strips.
        patch: Frames and bins of a token.
        views: Number of views per sample. They share the decoded audio and differ in augmentation and mask.
        component: Name of the audio file to read, such as "flac"; required only if a sample has several.
        fields: Other values of a sample to return in `batch.fields` (see `maskstream.pipelines.modalities.fields`);
            with mixup, they belong to the sample itself.
        over_run: Settings that change over the run, each with a schedule, such as {"clip.seconds": ...} (see
            `pipelines/modalities/phases.py`).
        on_device: Whether spectrograms are computed for whole batches on the device rather than for samples on
            the CPU. "auto" does so on CUDA, except for `Librosa` and for masks that read the spectrogram.
        backend: What computes the spectrograms of whole batches: torch ("auto", "cpu") or a DALI graph of
            `LogMel` ("dali").
    """

    clip: AudioClip = field(default_factory=AudioClip)
    mask: Mask | None = None
    features: Features = field(default_factory=Fbank)
    statistics: tuple[float, float] | None = None
    roll_gain: RollGain | None = None
    spec_augment: SpecAugment | None = None
    mixup: Mixup | None = None
    transform: TransformChoice = None
    patch: tuple[PositiveInt, PositiveInt] = (16, 16)
    views: PositiveInt = 1
    component: str | None = None
    fields: Fields = ()
    over_run: OverRun = field(default_factory=dict)
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)
    backend: Backend = field(default="auto", metadata=NOT_IDENTITY)


@dataclass(frozen=True, kw_only=True)
class AudioOptions(Options, AudioSettings):
    """The options of `audio_loader`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisySettings:
    """Settings of noisy mixtures, in which each sample of a split is mixed with noise.

    Attributes:
        noise: Location of a split of noises. By default Gaussian noise is generated, whose power falls with
            frequency as f ** -slope. The location does not belong to the identity of a run, but the fingerprint
            of its split does.
        clip: Length, sample rate and channels; by default 1.024 s of mono at 16 kHz.
        line: Linear array of microphones, which speech and noise reach from two random directions; the clip must
            be mono. By default the channels of the recordings are read.
        snr_db: Range in decibels from which the signal-to-noise ratio is drawn uniformly.
        slope: Range from which the slope of generated noise is drawn uniformly: 0 is white, 1 pink, 2 brown.
        component: Name of the audio file to read from a clean sample; required only if a sample has several.
        noise_component: Name of the audio file to read from a sample of `noise`; required only if a sample has
            several.
        fields: Other values of the clean sample to return in `batch.fields` (see `pipelines/modalities/fields.py`).
    """

    noise: str | Path | None = field(default=None, metadata=NOT_IDENTITY)
    clip: AudioClip = field(default_factory=lambda: AudioClip(seconds=1.024))
    line: MicrophoneLine | None = None
    snr_db: Annotated[tuple[float, float], ASCENDING] = (-5.0, 10.0)
    slope: Annotated[tuple[float, float], ASCENDING] = (0.0, 2.0)
    component: str | None = None
    noise_component: str | None = None
    fields: Fields = ()


@dataclass(frozen=True, kw_only=True)
class NoisyOptions(Options, NoisySettings):
    """The options of `noisy_loader`."""


@takes_fields(AudioOptions)
def audio_loader(location: Splits, options: AudioOptions) -> Loader[AudioBatch]:
    """Open the loader of masked audio: batch_size * views rows per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/audioset/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `AudioData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of audio.
    """
    return AudioData.open(location, options)


@takes_fields(NoisyOptions)
def noisy_loader(location: Splits, options: NoisyOptions) -> Loader[NoisyBatch]:
    """Open the loader of noisy mixtures of the samples of a split, with the clean audio.

    Args:
        location: Location of a split, such as `data/shards/librispeech/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `NoisyData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location, or the location of `noise`, is not a finished split of audio.
    """
    return NoisyData.open(location, replace(options, noise=None if options.noise is None else str(options.noise)))


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioData(AudioSettings, SplitConfig[AudioPlan, AudioBatch]):
    """Data config of masked audio."""

    modality: ClassVar[str] = "audio"
    alike: ClassVar[tuple[str, ...]] = ("clip.seconds", "clip.channels", "features", "patch")
    changing: ClassVar[tuple[str, ...]] = ("clip.seconds",)

    def validate(self) -> None:
        object.__setattr__(self, "transform", find_transform(self.transform, waveform=True))
        check_cues(self.mask, "sounds", CUES)
        _ = self.phases
        if self.features.sample_rate != self.clip.sample_rate:
            raise ValueError(
                f"clip has sample_rate={self.clip.sample_rate}, but features have "
                f"sample_rate={self.features.sample_rate}; use the same rate for both"
            )
        check_on_device(self.features, self.on_device, self.mask)
        if self.backend == "dali":
            check_on_device(self.features, True, self.mask)
        _ = self.grids

    @property
    def frames(self) -> int:
        """Number of frames of a spectrogram."""
        return round(self.clip.seconds * self.features.sample_rate / self.features.shift)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grid of "audio", with the axes (time, freq)."""
        return {"audio": compute_spectrogram_grid(self.frames, self.features.n_bins, self.patch)}

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: A setting does not fit the split.
        """
        # A device transform of whole batches has one length.
        on_device = False if self.over_run and self.on_device == "auto" else self.on_device
        return replace(
            self,
            clip=_put_in_order(self.clip, split),
            statistics=self.statistics or statistics_of(split, self.features),
            component=find_sound(split.manifest, self.component),
            on_device=self.backend == "dali" or is_on_device(self.features, on_device, split.device, self.mask),
        )

    def spectrogram(self, split: Split) -> Spectrogram:
        """Create the spectrogram computation for a split."""
        mean, deviation = self.statistics or statistics_of(split, self.features)
        return Spectrogram(features=self.features, frames=self.frames, mean=mean, deviation=deviation)

    def rows(self, split: Split) -> AudioRowMaker:
        """Create the row maker of a split."""
        return AudioRowMaker(
            sounds=SoundReader(
                manifest=split.manifest, component=self.component or "", clip=self.clip, seed=split.seed
            ),
            spectrogram=self.spectrogram(split),
            grid=self.grids["audio"],
            mask=self.mask,
            roll_gain=self.roll_gain,
            spec_augment=self.spec_augment,
            mixup=self.mixup,
            transform=find_transform(self.transform, waveform=True),
            on_device=self.on_device is True,
        )

    def finish(self, split: Split) -> Finish[AudioBatch, AudioBatch]:
        """Create the device transform that computes spectrograms, if they are computed there."""
        if wants_dali(self.backend):
            from .dali import DaliSpectrograms

            return DaliSpectrograms(self.spectrogram(split), split.threads)
        return Spectrograms(self.spectrogram(split)) if self.on_device is True else Unchanged()


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyData(NoisySettings, SplitConfig[NoisyPlan, NoisyBatch]):
    """Data config of noisy mixtures."""

    modality: ClassVar[str] = "audio"
    alike: ClassVar[tuple[str, ...]] = ("clip.seconds", "clip.sample_rate", "microphones")

    noise: str | None = field(default=None, metadata=NOT_IDENTITY)

    def validate(self) -> None:
        if self.line is not None and self.clip.channels != "mono":
            raise ValueError(
                f"line={self.line} needs a mono clip, got channels={self.clip.channels}; leave out line, or use "
                "channels='mono'"
            )
        if self.noise_component is not None and self.noise is None:
            raise ValueError(
                f"noise_component={self.noise_component!r} selects audio from the split passed as noise=, got "
                "noise=None; pass both"
            )

    @property
    def microphones(self) -> int:
        """Number of channels of a batch."""
        return self.clip.n_channels if self.line is None else self.line.count

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Empty, because nothing is masked."""
        return {}

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split."""
        return replace(self, clip=_put_in_order(self.clip, split), component=find_sound(split.manifest, self.component))

    def rows(self, split: Split) -> NoisyRowMaker:
        """Create the row maker of a split. Noise shorter than the clip is repeated to cover it."""
        noise = None
        if self.noise is not None:
            other = Split.open(self.noise, self.modality, device=split.device).manifest
            clip = replace(self.clip, short="repeat")
            name = find_sound(other, self.noise_component)
            noise = SoundReader(manifest=other, component=name, clip=clip, seed=split.seed)
        clean = SoundReader(manifest=split.manifest, component=self.component or "", clip=self.clip, seed=split.seed)
        return NoisyRowMaker(clean=clean, noise=noise, line=self.line, snr_db=self.snr_db, slope=self.slope)


def statistics_of(split: Split, features: Features) -> tuple[float, float]:
    """Return the mean and standard deviation of the features from dataset.json.

    Raises:
        ValueError: dataset.json has none for these features.
    """
    if features != STATISTICS:
        raise ValueError(
            f"dataset.json has statistics for {STATISTICS}, not for {features}; pass statistics=(mean, deviation)"
        )
    with parsing(f"{split.manifest.location}/{DATASET_JSON}"):
        return compute_fbank_statistics(split.manifest.info.get("sums", {}))


def _put_in_order(clip: AudioClip, split: Split) -> AudioClip:
    """Replace "random" by "center" if the split is not shuffled."""
    return clip if split.shuffle or clip.start != "random" else replace(clip, start="center")
