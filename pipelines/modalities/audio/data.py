"""What decides a batch of sounds, and one of noisy sounds, and the sources that they make of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self, Unpack

from ....shards.config import NOT_IDENTITY
from ....shards.media.fbank import STATISTICS, Fbank, fbank_statistics
from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..backend import Backend, dali_serves
from ..data import DataConfig, check_views
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
from .spectrogram import Features, Spectrogram, spectrogram_grid

AudioSource = Source[FieldsRequest[SoundRequest], FieldsDraft[SoundDraft], AudioBatch, AudioBatch]
NoisySource = Source[FieldsRequest[NoisyRequest], FieldsDraft[NoisyDraft], NoisyBatch, NoisyBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioData(DataConfig[AudioBatch]):
    """Masked sounds.

    clip: by default 10.24 s of mono at 16 kHz, 1,024 frames. features: Kaldi's filterbank of 128 bins (`Fbank`) or
    `LogMel`; statistics: their mean and deviation, by default what dataset.json says of the default filterbank, and to
    be given for others. patch: frames and bins of a token; the grid has the axes (time, freq). on_device: spectrograms
    are made of whole batches on their device; "auto" does so on CUDA. backend: who makes those; "auto" is a DALI graph
    for `LogMel` on CUDA where DALI is installed and there are no worker processes, else torch ("cpu"). roll_gain,
    spec_augment, mixup: see `augment/sound.py`, none by default. With `views=k` each sound is decoded once and gives k
    views. component: the sound that is read where a sample has several; by default the only one. fields: what else a
    sample holds, for `batch.fields` (see fields.py); with mixup they are those of the own sound.
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
        check_views(self.views)
        if self.features.sample_rate != self.clip.sample_rate:
            raise ValueError(
                f"the clip is at {self.clip.sample_rate} Hz and features at {self.features.sample_rate}; use one rate"
            )
        _ = self.grids

    @property
    def frames(self) -> int:
        """The frames of a spectrogram."""
        return round(self.clip.seconds * self.features.sample_rate / self.features.shift)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """That of "audio", on the axes (time, freq)."""
        return {"audio": spectrogram_grid(self.frames, self.features.n_bins, self.patch)}

    def resolved(self, split: Split) -> Self:
        """The same with all chosen that is left to the split; ValueError where that cannot be."""
        return replace(
            self,
            clip=_in_order(self.clip, split),
            statistics=self.statistics or statistics_of(split, self.features),
            component=sound_of(split.manifest, self.component),
            on_device=split.device.type == "cuda" if self.on_device == "auto" else self.on_device,
        )

    def sampler(self, split: Split) -> AudioSampler:
        """What makes the sounds of a split."""
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
        """The sounds of a split, for a loader or a mixture."""
        return with_fields(self._sounds(split, self.sampler(split)), split.manifest, self.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[AudioBatch]:
        """A loader of the sounds of a split."""
        split, loading = split_of(location, self.modality, options)
        sampler = self.sampler(split)
        suits = sampler.on_device and isinstance(self.features, LogMel)
        if dali_serves(self.backend, split.device, split.workers, suits=suits):
            from .dali import on_dali

            sounds = on_dali(self._sounds(split, sampler), sampler, split.threads)
            return Loader(with_fields(sounds, split.manifest, self.fields), **loading)
        return Loader(self.source(split), **loading)

    def _sounds(self, split: Split, sampler: AudioSampler) -> Source[SoundRequest, SoundDraft, AudioBatch, AudioBatch]:
        """The sounds without fields."""
        own = self.resolved(split)
        return Source(
            sampler=sampler,
            finish=Spectrograms(sampler.spectrogram) if sampler.on_device else Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), "dataset": split.manifest.fingerprint},
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


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyData(DataConfig[NoisyBatch]):
    """Sounds mixed with those of the split `noise`, which counts by what it holds.

    Without `noise` it is drawn: Gaussian, its power falling with frequency by a slope drawn from `slope` (0 is white, 1
    pink, 2 brown). snr_db: the ratio is drawn uniformly from this range. clip: by default 1.024 s at 16 kHz of mono.
    line: microphones that hear both, each from a direction of its own (the clip is then mono); without it the sounds'
    own channels are taken (`AudioClip(channels=6)`), of recordings made with several microphones. component,
    noise_component: the sound that is read where a sample, or one of the split `noise`, has several; by default the
    only one. fields: what else a sample holds beside its clean sound, for `batch.fields` (see fields.py).
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
        if self.line is not None and self.clip.channels != "mono":
            raise ValueError(
                f"line={self.line} places mono sounds, and the clip has channels={self.clip.channels}; use one of them"
            )
        if self.noise_component is not None and self.noise is None:
            raise ValueError(f"noise_component={self.noise_component!r} names a sound of the split noise=; give both")
        if self.snr_db[0] > self.snr_db[1] or self.slope[0] > self.slope[1]:
            raise ValueError(f"snr_db={self.snr_db} and slope={self.slope} are ranges, from low to high")

    @property
    def microphones(self) -> int:
        """The channels of a batch."""
        return self.clip.n_channels if self.line is None else self.line.count

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """None: nothing is masked."""
        return {}

    def resolved(self, split: Split) -> Self:
        """The same with all chosen that is left to the split."""
        return replace(self, clip=_in_order(self.clip, split), component=sound_of(split.manifest, self.component))

    def sampler(self, split: Split) -> NoisySampler:
        """What mixes the sounds of a split with noise; noise repeats, since it is there all the time."""
        own, noise = self.resolved(split), None
        if own.noise is not None:
            other = Split.open(own.noise, self.modality, device=split.device).manifest
            clip = replace(own.clip, short="repeat")
            name = sound_of(other, own.noise_component)
            noise = SoundReader(manifest=other, component=name, clip=clip, seed=split.seed)
        clean = SoundReader(manifest=split.manifest, component=own.component or "", clip=own.clip, seed=split.seed)
        return NoisySampler(clean=clean, noise=noise, line=own.line, snr_db=own.snr_db, slope=own.slope)

    def source(self, split: Split) -> NoisySource:
        """The sounds of a split with noise, for a loader or a mixture."""
        own, sampler = self.resolved(split), self.sampler(split)
        dataset = split.manifest.fingerprint
        if sampler.noise is not None:
            dataset = f"{dataset} with {sampler.noise.manifest.fingerprint}"
        sounds = Source(
            sampler=sampler,
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), "dataset": dataset},
            form={
                "clip.seconds": own.clip.seconds,
                "clip.sample_rate": own.clip.sample_rate,
                "microphones": own.microphones,
            },
        )
        return with_fields(sounds, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[NoisyBatch]:
        """A loader of the sounds of a split with noise."""
        split, loading = split_of(location, self.modality, options)
        return Loader(self.source(split), **loading)


def statistics_of(split: Split, features: Features) -> tuple[float, float]:
    """Mean and deviation that dataset.json says of the features; ValueError where it says nothing of such."""
    if features != STATISTICS:
        raise ValueError(
            f"dataset.json knows the statistics of {STATISTICS}, not of {features}; give statistics=(mean, deviation)"
        )
    return fbank_statistics(split.manifest.info.get("sums", {}))


def _in_order(clip: AudioClip, split: Split) -> AudioClip:
    """The clip, whose stretch is not drawn where samples come in order."""
    return clip if split.shuffle or clip.start != "random" else replace(clip, start="center")
