"""Data configs and loaders of audio and of noisy mixtures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self, Unpack

from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.augment.transform import TransformChoice, find_transform
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.backend import Backend, wants_dali
from maskstream.pipelines.modalities.data import SplitConfig, check_cues, check_settings
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.phases import OverRun
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import Finish, Unchanged
from maskstream.shards.config import NOT_IDENTITY, check_types
from maskstream.shards.format.data_errors import parsing
from maskstream.shards.format.dataset import DATASET_JSON
from maskstream.shards.media.fbank import STATISTICS, Fbank, compute_fbank_statistics

from .batch import AudioBatch, NoisyBatch
from .reader import AudioClip, SoundReader, find_sound
from .rows import CUES, AudioPlan, AudioRowMaker, MicrophoneLine, NoisyPlan, NoisyRowMaker, Spectrograms
from .spectrogram import Features, Spectrogram, check_on_device, compute_spectrogram_grid, is_on_device


class AudioSettings(Options, total=False):
    """The fields of `AudioData`, with its defaults, and the options of all loaders."""

    clip: AudioClip
    mask: Mask | None
    features: Features
    statistics: tuple[float, float] | None
    roll_gain: RollGain | None
    spec_augment: SpecAugment | None
    mixup: Mixup | None
    transform: TransformChoice
    patch: tuple[int, int]
    views: int
    component: str | None
    fields: Fields
    over_run: OverRun
    on_device: bool | Literal["auto"]
    backend: Backend


class NoisySettings(Options, total=False):
    """The fields of `NoisyData`, with its defaults, and the options of all loaders."""

    noise: str | Path | None
    clip: AudioClip
    line: MicrophoneLine | None
    snr_db: tuple[float, float]
    slope: tuple[float, float]
    component: str | None
    noise_component: str | None
    fields: Fields


def audio_loader(location: Splits, **settings: Unpack[AudioSettings]) -> Loader[AudioBatch]:
    """The loader of masked sounds of the split in the folder `location`, such as `data/shards/audioset/train`.

    location: the path or URL of a split, or (location, weight) pairs of several, which are mixed as `mix` says.
    settings: the fields of `AudioData` (clip, mask, features, views, ...) and the options of all loaders (`Options`:
    batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of sounds.
    """
    return AudioData.opened(location, settings)


def noisy_loader(location: Splits, **settings: Unpack[NoisySettings]) -> Loader[NoisyBatch]:
    """The loader of noisy mixtures of the sounds of the split in the folder `location`, with their clean sounds.

    location: the path or URL of a split, or (location, weight) pairs of several, which are mixed as `mix` says.
    settings: the fields of `NoisyData` (noise, clip, line, snr_db, slope, fields) and the options of all loaders
    (`Options`: batch_size, seed, shuffle, workers, ...).

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if `location` or `noise` holds
    no finished split of sounds.
    """
    noise = settings.get("noise")
    return NoisyData.opened(location, {**settings, "noise": None if noise is None else str(noise)})


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioData(SplitConfig[AudioPlan, AudioBatch]):
    """The data config of masked sounds.

    clip: by default 10.24 s of mono at 16 kHz, which gives 1,024 frames. mask: a mask of `maskstream.pipelines.masks`,
    or None. features: Kaldi's filterbank of 128 bins (`Fbank`), `LogMel` or `Librosa`. statistics: mean and standard
    deviation of the features; by default dataset.json's for the default filterbank, and required for other features.
    patch: frames and bins per token, on the grid (time, freq). on_device: whether spectrograms are made of whole
    batches on the device, not of samples in the loader's threads; "auto" does so on CUDA, but not for `Librosa`
    or a mask that needs the spectrogram.

    backend: what makes the spectrograms of whole batches: torch ("auto", "cpu") or a DALI graph of `LogMel` ("dali").
    roll_gain, spec_augment, mixup: augmentations (augment/sound.py), by default none. transform: a change of
    waveforms of your own (`maskstream.Transform`), after them but before strips. views: the number of views per
    sample; they share the decoded sound and differ in augmentation and mask. component: the sound to read, such as
    "flac"; None if a sample has only one. fields: other values of a sample for `batch.fields` (see fields.py); with
    mixup, of the sample's own sound. over_run: settings that change over the run, such as {"clip.seconds": ...} (see
    phases.py).
    """

    modality: ClassVar[str] = "audio"
    alike: ClassVar[tuple[str, ...]] = ("clip.seconds", "clip.channels", "features", "patch")
    changing: ClassVar[tuple[str, ...]] = ("clip.seconds",)

    clip: AudioClip = field(default_factory=AudioClip)
    mask: Mask | None = None
    features: Features = field(default_factory=Fbank)
    statistics: tuple[float, float] | None = None
    roll_gain: RollGain | None = None
    spec_augment: SpecAugment | None = None
    mixup: Mixup | None = None
    transform: TransformChoice = None
    patch: tuple[int, int] = (16, 16)
    views: int = 1
    component: str | None = None
    fields: Fields = ()
    over_run: OverRun = field(default_factory=dict)
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)
    backend: Backend = field(default="auto", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        object.__setattr__(self, "transform", find_transform(self.transform, waveform=True))
        check_settings(self, self.views)
        check_cues(self.mask, "sounds", CUES)
        _ = self.phases
        if self.features.sample_rate != self.clip.sample_rate:
            raise ValueError(
                f"clip has sample_rate={self.clip.sample_rate} and features have sample_rate="
                f"{self.features.sample_rate}; give both the same rate"
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
class NoisyData(SplitConfig[NoisyPlan, NoisyBatch]):
    """The data config of noisy mixtures: each sound of the split is mixed with noise.

    noise: the folder of a split of noises; None generates Gaussian noise whose power falls with frequency as f **
    -slope. The folder does not belong to the identity of a run, but the fingerprint of its split does. slope: the range
    of the uniform draw of the slope; 0 is white, 1 pink, 2 brown. snr_db: the range of the uniform draw of the
    signal-to-noise ratio, in decibels. clip: by default 1.024 s of mono at 16 kHz. line: a linear array of microphones,
    which sound and noise reach from two drawn directions; the clip must be mono. None takes the channels of the
    recordings (`AudioClip(channels=6)`). component, noise_component: the sound to read in a clean sample and in a
    sample of `noise`; None if a sample has only one. fields: other values of the clean sample for `batch.fields` (see
    fields.py).
    """

    modality: ClassVar[str] = "audio"
    alike: ClassVar[tuple[str, ...]] = ("clip.seconds", "clip.sample_rate", "microphones")

    noise: str | None = field(default=None, metadata=NOT_IDENTITY)
    clip: AudioClip = field(default_factory=lambda: AudioClip(seconds=1.024))
    line: MicrophoneLine | None = None
    snr_db: tuple[float, float] = (-5.0, 10.0)
    slope: tuple[float, float] = (0.0, 2.0)
    component: str | None = None
    noise_component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_types(self)
        if self.line is not None and self.clip.channels != "mono":
            raise ValueError(
                f"line={self.line} needs a mono clip, got channels={self.clip.channels}; leave out line, or use "
                "channels='mono'"
            )
        if self.noise_component is not None and self.noise is None:
            raise ValueError(
                f"noise_component={self.noise_component!r} names a sound of the split noise=, got noise=None; give both"
            )
        if self.snr_db[0] > self.snr_db[1] or self.slope[0] > self.slope[1]:
            raise ValueError(f"snr_db and slope must be (low, high), got {self.snr_db} and {self.slope}")

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
            f"dataset.json has the statistics of {STATISTICS}, not of {features}; give statistics=(mean, deviation)"
        )
    with parsing(f"{split.manifest.location}/{DATASET_JSON}"):
        return compute_fbank_statistics(split.manifest.info.get("sums", {}))


def _put_in_order(clip: AudioClip, split: Split) -> AudioClip:
    """Replace "random" by "center" if the split is not shuffled."""
    return clip if split.shuffle or clip.start != "random" else replace(clip, start="center")
