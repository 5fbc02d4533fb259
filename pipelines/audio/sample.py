"""One sound on its way to a batch: draw the stretch, read its frames, decode, resample, augment, spectrogram, mask."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from ...shards.errors import SampleError
from ...shards.manifest import Manifest
from ...shards.store import LocalStore
from ..augment.sound import Mixup, RollGain, SpecAugment
from ..batch import AudioBatch, MaskBatch
from ..masks import Cues, Draw, Mask, TokenGrid
from ..place import START, Place
from ..rng import sample_rng
from ..stats import Stats
from .clip import AudioClip
from .reader import SoundReader
from .spectrogram import Spectrogram


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSample:
    """The views of one sound, as an AudioBatch of them without weight."""

    batch: AudioBatch
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class AudioSampler:
    """Makes samples of one dataset; holds settings only, so that it can be sent to worker processes.

    Every random choice is a function of (seed, epoch, key, view): the stretch is shared by the views of a sample; each
    view has a shift, a gain, a partner to mix with, strips and a mask of its own. on_device: the spectrogram is left to
    the loader, which makes it for whole batches. part: as in `Draw`, where the sound is a part of a sample.
    """

    manifest: Manifest
    clip: AudioClip
    spectrogram: Spectrogram
    grid: TokenGrid
    mask: Mask | None
    roll_gain: RollGain | None
    spec_augment: SpecAugment | None
    mixup: Mixup | None
    seed: int
    views: int = 1
    on_device: bool = False
    part: str = ""
    store: LocalStore = field(default_factory=LocalStore)

    @property
    def needs_progress(self) -> bool:
        """Whether its mask changes over the run."""
        return self.mask is not None and self.mask.needs_progress

    @property
    def sounds(self) -> SoundReader:
        """What reads them."""
        return SoundReader(manifest=self.manifest, clip=self.clip, seed=self.seed, store=self.store)

    def make(self, index: int, epoch: int, place: Place = START) -> AudioSample:
        """Sample `index` as the epoch shows it at its place in the run; SampleError where it cannot be used."""
        return self.make_of(index, epoch, place, *self.sounds.stretch(index, epoch))

    def make_of(self, index: int, epoch: int, place: Place, first: int, stop: int) -> AudioSample:
        """The same of its samples [first, stop), counted at the rate that it is stored at."""
        stats = Stats(samples=1)
        key = self.manifest.key(index)
        sound = self.sounds.sound(index, first, stop, stats)
        views = [self._view(index, epoch, key, view, place, sound, stats) for view in range(self.views)]
        start_s = torch.full((1,), first / int(self.manifest.facts["sample_rate"][index]), dtype=torch.float64)
        return AudioSample(batch=joined([replace(view, start_s=start_s) for view in views]), stats=stats)

    def collate(self, samples: list[AudioSample]) -> AudioBatch:
        """Samples to a batch, the views of a sample one after the other."""
        return joined([sample.batch for sample in samples])

    def _view(
        self, index: int, epoch: int, key: str, view: int, place: Place, sound: npt.NDArray[np.float32], stats: Stats
    ) -> AudioBatch:
        """A batch of one."""
        sound, other, share = self._mixed(index, epoch, key, view, sound, stats)
        with stats.stage("convert"):
            if self.roll_gain is not None:
                sound = self.roll_gain(sound, sample_rng(self.seed, epoch, key, view, "roll"))
            waveform = torch.from_numpy(np.ascontiguousarray(sound.T))[None]
            if len(sound) < self.clip.n_samples:
                waveform = pad(waveform, (0, self.clip.n_samples - len(sound)))
            length = torch.tensor([len(sound)])
            strips = self._strips(epoch, key, view)
            mono = waveform[:, 0] if self.clip.n_channels == 1 else waveform.mean(dim=1)
            spectrogram = None if self.on_device else self.spectrogram(mono, length, strips)
        with stats.stage("mask"):
            mask = self._mask(epoch, key, view, place, length)
        return AudioBatch(
            waveform=waveform,
            length=length,
            spectrogram=spectrogram,
            mask=mask,
            label=torch.tensor([int(self.manifest.label[index])]),
            key=[key],
            start_s=torch.zeros(1, dtype=torch.float64),
            strips=strips,
            mixed_label=None if self.mixup is None else torch.tensor([int(self.manifest.label[other])]),
            share=None if self.mixup is None else torch.tensor([share], dtype=torch.float32),
        )

    def _mixed(
        self, index: int, epoch: int, key: str, view: int, sound: npt.NDArray[np.float32], stats: Stats
    ) -> tuple[npt.NDArray[np.float32], int, float]:
        """The sound with another one mixed in, as long as the longer; the other's index, and the share of its own.

        The other is the stretch that the epoch shows of it. Where nothing is mixed in, or the other cannot be used, the
        index is its own and the share 1.
        """
        if self.mixup is None:
            return sound, index, 1.0
        drawn = self.mixup.draw(len(self.manifest), sample_rng(self.seed, epoch, key, view, "mixup"))
        if drawn is None:
            return sound, index, 1.0
        other, share = drawn
        try:
            partner = self.sounds.sound(other, *self.sounds.stretch(other, epoch), stats)
        except SampleError:
            return sound, index, 1.0
        out = np.zeros((max(len(sound), len(partner)), sound.shape[1]), dtype=np.float32)
        out[: len(sound)] += np.float32(share) * (sound - sound.mean())
        out[: len(partner)] += np.float32(1 - share) * (partner - partner.mean())
        return out, other, share

    def _strips(self, epoch: int, key: str, view: int) -> torch.Tensor | None:
        if self.spec_augment is None:
            return None
        frames, bins = self.spectrogram.frames, self.spectrogram.features.n_bins
        drawn = self.spec_augment.draw(frames, bins, sample_rng(self.seed, epoch, key, view, "strips"))
        return torch.from_numpy(drawn)[None]

    def _mask(self, epoch: int, key: str, view: int, place: Place, length: torch.Tensor) -> MaskBatch | None:
        """The view's mask; targets that lie wholly behind the end of the sound count nothing."""
        if self.mask is None:
            return None
        mask = self.mask.draw(self.grid, [Draw.of(self.seed, epoch, key, view, place, Cues(), self.part)])
        column = mask.target // self.grid.shape[1]
        real = column * self.grid.patch[0] < self.spectrogram.n_frames(length).clamp(min=1)
        return replace(mask, weight=mask.weight * real)


def joined(parts: list[AudioBatch]) -> AudioBatch:
    """One batch of all."""
    if len(parts) == 1:
        return parts[0]
    tensors = ("waveform", "length", "spectrogram", "label", "start_s", "strips", "mixed_label", "share")
    first = parts[0]
    cat: dict[str, Any] = {
        n: None if getattr(first, n) is None else torch.cat([getattr(p, n) for p in parts]) for n in tensors
    }
    masks = [part.mask for part in parts if part.mask is not None]
    return AudioBatch(
        **cat, mask=MaskBatch.concatenated(masks) if masks else None, key=[key for part in parts for key in part.key]
    )
