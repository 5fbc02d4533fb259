"""What decides a batch of clips with their sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Unpack

from ....shards.config import NOT_IDENTITY
from ....shards.media.fbank import Fbank
from ...augment import Augmentation
from ...augment.diffusion import LinearNoise
from ...augment.sound import SpecAugment
from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ..audio.spectrogram import Features, spectrogram_grid
from ..data import DataConfig, check_views
from ..split import Options, Split
from ..video.clip import VideoClip
from .batch import AudioVisualBatch
from .spectrogram_noise import SpectrogramNoise

if TYPE_CHECKING:
    from .loader import AudioVisualSource


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualData(DataConfig[AudioVisualBatch]):
    """Masked clips with the sound of their time; the fields are the settings of `audiovisual_loader`."""

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
    flow: Literal["auto", "codec", "dis", "none"] = "auto"
    noise: LinearNoise | None = None
    views: int = 1
    tubelet: int = 2
    patch: int = 16
    audio_patch: tuple[int, int] = (16, 16)
    component: str | None = None
    sound: str | None = None
    on_device: bool | Literal["auto"] = field(default="auto", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        check_views(self.views)
        if self.spectrogram_noise is not None and self.on_device is True:
            raise ValueError("spectrogram_noise is added to samples; leave out on_device=True, or the noise")
        _ = self.grids

    @property
    def frames(self) -> int:
        """The frames of a spectrogram."""
        return round(self.seconds * self.features.sample_rate / self.features.shift)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Those of "video", on the axes (t, h, w), and "audio", on (time, freq)."""
        size = self.clip.size
        return {
            "video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch),
            "audio": spectrogram_grid(self.frames, self.features.n_bins, self.audio_patch),
        }

    def source(self, split: Split) -> AudioVisualSource:
        """The clips of a split with their sound, for a loader or a mixture."""
        from .loader import audiovisual_sampler, audiovisual_source

        sampler = audiovisual_sampler(
            split,
            clip=self.clip,
            seconds=self.seconds,
            video_mask=self.video_mask,
            audio_mask=self.audio_mask,
            features=self.features,
            statistics=self.statistics,
            augment=self.augment,
            spec_augment=self.spec_augment,
            spectrogram_noise=self.spectrogram_noise,
            flow=self.flow,
            noise=self.noise,
            views=self.views,
            tubelet=self.tubelet,
            patch=self.patch,
            audio_patch=self.audio_patch,
            component=self.component,
            sound=self.sound,
            on_device=self.on_device,
        )
        return audiovisual_source(split, sampler)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[AudioVisualBatch]:
        """A loader of the clips of a split and their sound."""
        from .loader import audiovisual_loader

        return audiovisual_loader(
            location,
            clip=self.clip,
            seconds=self.seconds,
            video_mask=self.video_mask,
            audio_mask=self.audio_mask,
            features=self.features,
            statistics=self.statistics,
            augment=self.augment,
            spec_augment=self.spec_augment,
            spectrogram_noise=self.spectrogram_noise,
            flow=self.flow,
            noise=self.noise,
            views=self.views,
            tubelet=self.tubelet,
            patch=self.patch,
            audio_patch=self.audio_patch,
            component=self.component,
            sound=self.sound,
            on_device=self.on_device,
            **options,
        )
