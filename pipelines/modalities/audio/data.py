"""What decides a batch of sounds, and one of noisy sounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Unpack

from ....shards.config import NOT_IDENTITY
from ....shards.media.fbank import Fbank
from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ..data import DataConfig, check_views
from ..split import Options, Split
from .batch import AudioBatch, NoisyBatch
from .clip import AudioClip
from .microphones import MicrophoneLine
from .spectrogram import Features, spectrogram_grid

if TYPE_CHECKING:
    from .loader import AudioSource
    from .noisy import NoisySource


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioData(DataConfig[AudioBatch]):
    """Masked sounds; the fields are the settings of `audio_loader`."""

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
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)
    backend: Literal["auto", "cpu", "dali"] = field(default="auto", metadata=NOT_IDENTITY)

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

    def source(self, split: Split) -> AudioSource:
        """The sounds of a split, for a loader or a mixture."""
        from .loader import audio_sampler, audio_source

        sampler = audio_sampler(
            split,
            clip=self.clip,
            mask=self.mask,
            features=self.features,
            statistics=self.statistics,
            roll_gain=self.roll_gain,
            spec_augment=self.spec_augment,
            mixup=self.mixup,
            patch=self.patch,
            views=self.views,
            component=self.component,
            on_device=self.on_device,
        )
        return audio_source(split, sampler)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[AudioBatch]:
        """A loader of the sounds of a split."""
        from .loader import audio_loader

        return audio_loader(
            location,
            clip=self.clip,
            mask=self.mask,
            features=self.features,
            statistics=self.statistics,
            roll_gain=self.roll_gain,
            spec_augment=self.spec_augment,
            mixup=self.mixup,
            patch=self.patch,
            views=self.views,
            component=self.component,
            on_device=self.on_device,
            backend=self.backend,
            **options,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyData(DataConfig[NoisyBatch]):
    """Noisy sounds; the fields are the settings of `noisy_loader`. The split of noises counts by what it holds."""

    modality: ClassVar[str] = "audio"

    noise: str | None = field(default=None, metadata=NOT_IDENTITY)
    clip: AudioClip = field(default_factory=lambda: AudioClip(seconds=1.024))
    line: MicrophoneLine | None = None
    snr_db: tuple[float, float] = (-5.0, 10.0)
    slope: tuple[float, float] = (0.0, 2.0)

    def __post_init__(self) -> None:
        if self.line is not None and self.clip.channels != "mono":
            raise ValueError(
                f"line={self.line} places mono sounds, and the clip has channels={self.clip.channels}; use one of them"
            )
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

    def source(self, split: Split) -> NoisySource:
        """The sounds of a split with noise, for a loader or a mixture."""
        from .noisy import noisy_sampler, noisy_source

        noise = None if self.noise is None else Split.open(self.noise, self.modality)
        sampler = noisy_sampler(split, noise, clip=self.clip, line=self.line, snr_db=self.snr_db, slope=self.slope)
        return noisy_source(split, sampler)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[NoisyBatch]:
        """A loader of the sounds of a split with noise."""
        from .noisy import noisy_loader

        return noisy_loader(
            location,
            noise=self.noise,
            clip=self.clip,
            line=self.line,
            snr_db=self.snr_db,
            slope=self.slope,
            **options,
        )
