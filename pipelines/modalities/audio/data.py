"""The data configs of sounds and of noisy mixtures, and the sources that they make of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self, Unpack

from ....shards.config import NOT_IDENTITY, check_types
from ....shards.format.damage import parsing
from ....shards.format.dataset import DATASET_JSON
from ....shards.media.fbank import STATISTICS, Fbank, fbank_statistics
from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..backend import Backend, dali_serves
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import AudioBatch, NoisyBatch
from .clip import AudioClip
from .finish import Spectrograms
from .log_mel import LogMel
from .microphones import MicrophoneLine
from .noisy import NoisyDraft, NoisyRequest, NoisySampler
from .reader import SoundReader, sound_of
from .sample import AudioSampler, SoundDraft, SoundRequest
from .spectrogram import Features, Spectrogram, check_on_device, is_on_device, spectrogram_grid

AudioSource = Source[FieldsRequest[SoundRequest], FieldsDraft[SoundDraft], AudioBatch, AudioBatch]
NoisySource = Source[FieldsRequest[NoisyRequest], FieldsDraft[NoisyDraft], NoisyBatch, NoisyBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioData(DataConfig[AudioBatch]):
    """The data config of masked sounds.

    clip: by default 10.24 s of mono at 16 kHz, which gives 1,024 frames. mask: a mask of `maskstream.pipelines.masks`,
    or None. features: Kaldi's filterbank of 128 bins (`Fbank`), `LogMel` or `Librosa`. statistics: mean and standard
    deviation of the features; by default dataset.json's for the default filterbank, and required for other features.
    patch: frames and bins per token, on the grid (time, freq). on_device: whether spectrograms are made of whole
    batches on the device, not of samples in the loader's threads; "auto" does so on CUDA, but not for `Librosa`.

    backend: what makes the spectrograms of whole batches; "auto" is DALI for `LogMel` on a CUDA device where `make gpu`
    has passed and found DALI to be the fastest, else torch ("cpu"). roll_gain, spec_augment, mixup: augmentations
    (augment/sound.py), by default none. views: the number of views per sample; they share the decoded sound and differ
    in augmentation and mask. component: the sound to read, such as "flac"; None if a sample has only one. fields: other
    values of a sample for `batch.fields` (see fields.py); with mixup, of the sample's own sound.
    """

    modality: ClassVar[str] = "audio"

    clip: AudioClip = field(default_factory=AudioClip)
    mask: Mask | None = None
    features: Features = field(default_factory=Fbank)
    statistics: tuple[float, float] | None = None
    roll_gain: RollGain | None = None
    spec_augment: SpecAugment | None = None
    mixup: Mixup | None = None
    patch: tuple[int, int] = (16, 16)
    views: int = 1
    component: str | None = None
    fields: Fields = ()
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)
    backend: Backend = field(default="auto", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        check_settings(self, self.views)
        if self.features.sample_rate != self.clip.sample_rate:
            raise ValueError(
                f"clip has sample_rate={self.clip.sample_rate} and features have sample_rate="
                f"{self.features.sample_rate}; give both the same rate"
            )
        check_on_device(self.features, self.on_device)
        _ = self.grids

    @property
    def frames(self) -> int:
        """The number of frames of a spectrogram."""
        return round(self.clip.seconds * self.features.sample_rate / self.features.shift)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "audio", with the axes (time, freq)."""
        return {"audio": spectrogram_grid(self.frames, self.features.n_bins, self.patch)}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; raises ValueError if that is impossible."""
        return replace(
            self,
            clip=_in_order(self.clip, split),
            statistics=self.statistics or statistics_of(split, self.features),
            component=sound_of(split.manifest, self.component),
            on_device=is_on_device(self.features, self.on_device, split.device),
        )

    def sampler(self, split: Split) -> AudioSampler:
        """The sampler of a split."""
        own = self.resolved(split)
        mean, deviation = own.statistics or statistics_of(split, own.features)
        return AudioSampler(
            manifest=split.manifest,
            clip=own.clip,
            spectrogram=Spectrogram(features=own.features, frames=own.frames, mean=mean, deviation=deviation),
            grid=own.grids["audio"],
            pattern=own.mask,
            roll_gain=own.roll_gain,
            spec_augment=own.spec_augment,
            mixup=own.mixup,
            seed=split.seed,
            views=own.views,
            on_device=own.on_device is True,
            component=own.component or "",
        )

    def source(self, split: Split) -> AudioSource:
        """The source of a split, for a loader or a mixture."""
        return with_fields(self._sounds(split, self.sampler(split)), split.manifest, self.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[AudioBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        sampler = self.sampler(split)
        if dali_serves(self.backend, split.device, partial(_unsuited, sampler)):
            from .dali import on_dali

            sounds = on_dali(self._sounds(split, sampler), sampler, split.threads)
            return Loader(with_fields(sounds, split.manifest, self.fields), **loading)
        return Loader(self.source(split), **loading)

    def _sounds(self, split: Split, sampler: AudioSampler) -> Source[SoundRequest, SoundDraft, AudioBatch, AudioBatch]:
        """The source of sounds without fields."""
        own = self.resolved(split)
        return Source(
            sampler=sampler,
            finish=Spectrograms(sampler.spectrogram) if sampler.on_device else Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            visible=visible_tokens((own.mask, own.grids["audio"])),
            form={
                "clip.seconds": own.clip.seconds,
                "clip.channels": own.clip.channels,
                "features": own.features,
                "token grid": own.grids["audio"],
                "views": own.views,
                "mask": own.mask,
                "mixup": "yes" if own.mixup else "no",
                "spec_augment": "yes" if own.spec_augment else "no",
                "on_device": sampler.on_device,
            },
        )


def _unsuited(sampler: AudioSampler) -> str:
    """Why DALI does not make the spectrograms of a sampler, in words; "" if it can."""
    if not sampler.on_device:
        return "threads make the spectrograms (on_device=False)"
    features = sampler.spectrogram.features
    return "" if isinstance(features, LogMel) else f"the spectrograms of features={features} are not made by DALI"


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyData(DataConfig[NoisyBatch]):
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
        """The number of channels of a batch."""
        return self.clip.n_channels if self.line is None else self.line.count

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Empty, because nothing is masked."""
        return {}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in."""
        return replace(self, clip=_in_order(self.clip, split), component=sound_of(split.manifest, self.component))

    def sampler(self, split: Split) -> NoisySampler:
        """The sampler of a split. Noise that is shorter than the clip is repeated, so it covers the whole clip."""
        own, noise = self.resolved(split), None
        if own.noise is not None:
            other = Split.open(own.noise, self.modality, device=split.device).manifest
            clip = replace(own.clip, short="repeat")
            name = sound_of(other, own.noise_component)
            noise = SoundReader(manifest=other, component=name, clip=clip, seed=split.seed)
        clean = SoundReader(manifest=split.manifest, component=own.component or "", clip=own.clip, seed=split.seed)
        return NoisySampler(clean=clean, noise=noise, line=own.line, snr_db=own.snr_db, slope=own.slope)

    def source(self, split: Split) -> NoisySource:
        """The source of a split, for a loader or a mixture."""
        own, sampler = self.resolved(split), self.sampler(split)
        dataset = split.identity
        if sampler.noise is not None:
            dataset["dataset"] += f" with {sampler.noise.manifest.fingerprint}"
        sounds = Source(
            sampler=sampler,
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **dataset},
            form={
                "clip.seconds": own.clip.seconds,
                "clip.sample_rate": own.clip.sample_rate,
                "microphones": own.microphones,
            },
        )
        return with_fields(sounds, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[NoisyBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)


def statistics_of(split: Split, features: Features) -> tuple[float, float]:
    """Mean and standard deviation of the features in dataset.json; raises ValueError if it has none for them."""
    if features != STATISTICS:
        raise ValueError(
            f"dataset.json has the statistics of {STATISTICS}, not of {features}; give statistics=(mean, deviation)"
        )
    with parsing(f"{split.manifest.location}/{DATASET_JSON}"):
        return fbank_statistics(split.manifest.info.get("sums", {}))


def _in_order(clip: AudioClip, split: Split) -> AudioClip:
    """The clip, with "center" for "random" if the split is not shuffled."""
    return clip if split.shuffle or clip.start != "random" else replace(clip, start="center")
