"""One sound on its way to a batch: draw the stretch, read its frames, decode, resample, augment, spectrogram, mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import SampleError
from ....shards.format.manifest import Manifest
from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Cues, Draw, Mask, TokenGrid
from ...masks.core.batch import MaskBatch
from ...stream.place import START, Place
from ...stream.rng import sample_rng
from ...stream.stats import Stats
from .batch import AudioBatch
from .clip import AudioClip
from .reader import SoundReader
from .room import Room, rows_of, together
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
    component: str = "flac"

    @property
    def needs_progress(self) -> bool:
        """Whether its mask changes over the run."""
        return self.mask is not None and self.mask.needs_progress

    @property
    def sounds(self) -> SoundReader:
        """What reads them."""
        return SoundReader(manifest=self.manifest, component=self.component, clip=self.clip, seed=self.seed)

    def prepare(self, samples: list[tuple[int, int, Place]]) -> list[Room]:
        """For the samples (index, epoch, place) of a batch: its memory, and their masks, which follow no sound."""
        rows = len(samples) * self.views
        # Whoever asks for the batch may be in inference mode, and the threads that fill its memory are not.
        with torch.inference_mode(False):
            waveform = torch.empty((rows, self.clip.n_channels, self.clip.n_samples))
            spectrogram = None
            if not self.on_device:
                spectrogram = torch.empty((rows, self.spectrogram.frames, self.spectrogram.features.n_bins))
        stats = Stats()
        with stats.stage("mask"):
            mask = self._masks(samples)
        rooms = []
        for n, (index, _, _) in enumerate(samples):
            own = slice(n * self.views, (n + 1) * self.views)
            rooms.append(
                Room(
                    index=index,
                    waveform=waveform[own],
                    spectrogram=None if spectrogram is None else spectrogram[own],
                    mask=None if mask is None else rows_of(mask, own.start, own.stop),
                    stats=stats if n == 0 else Stats(),
                )
            )
        return rooms

    def make(self, index: int, epoch: int, place: Place = START, room: Room | None = None) -> AudioSample:
        """Sample `index` as the epoch shows it at its place in the run, in the memory that was prepared for it or for
        one that it replaces; SampleError where it cannot be used.
        """
        return self.make_of(index, epoch, place, *self.sounds.stretch(index, epoch), room)

    def make_of(
        self, index: int, epoch: int, place: Place, first: int, stop: int, room: Room | None = None
    ) -> AudioSample:
        """The same of its samples [first, stop), counted at the rate that it is stored at."""
        room = room or self.prepare([(index, epoch, place)])[0]
        stats = Stats(samples=1)
        stats.add(room.stats)
        key = self.manifest.key(index)
        sound = self.sounds.sound(index, first, stop, stats)
        mixed = [self._mixed(index, epoch, key, view, sound, stats) for view in range(self.views)]
        with stats.stage("convert"):
            length = torch.tensor([len(own) for own, _, _ in mixed])
            self._fill(room.waveform, [own for own, _, _ in mixed], epoch, key)
            strips = self._strips(epoch, key)
            if room.spectrogram is not None:
                self.spectrogram(mono(room.waveform), length, strips, out=room.spectrogram)
        with stats.stage("mask"):
            mask = room.mask if room.index == index else self._masks([(index, epoch, place)])
            mask = None if mask is None else self._weighted(mask, length)
        rate, labels = int(self.manifest.components[self.component].facts["sample_rate"][index]), self.manifest.label
        batch = AudioBatch(
            waveform=room.waveform,
            length=length,
            spectrogram=room.spectrogram,
            mask=mask,
            label=torch.full((self.views,), int(labels[index])),
            key=[key] * self.views,
            start_s=torch.full((self.views,), first / rate, dtype=torch.float64),
            strips=strips,
            mixed_label=None if self.mixup is None else torch.tensor([int(labels[other]) for _, other, _ in mixed]),
            share=None if self.mixup is None else torch.tensor([share for _, _, share in mixed], dtype=torch.float32),
        )
        return AudioSample(batch=batch, stats=stats)

    def collate(self, samples: list[AudioSample]) -> AudioBatch:
        """Samples to a batch, the views of a sample one after the other."""
        return joined([sample.batch for sample in samples])

    def _fill(self, room: torch.Tensor, sounds: list[npt.NDArray[np.float32]], epoch: int, key: str) -> None:
        """Writes the views' sounds, float32 (n, C), moved and scaled, into float32 (views, C, n), zeros behind them."""
        for view, (sound, to) in enumerate(zip(sounds, room.numpy(), strict=True)):
            moved = sound
            if self.roll_gain is not None:
                moved = self.roll_gain(sound, sample_rng(self.seed, epoch, key, view, "roll"))
            to[:, : len(moved)] = moved.T
            to[:, len(moved) :] = 0

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

    def _strips(self, epoch: int, key: str) -> torch.Tensor | None:
        """Those of the views, int64 (views, 4)."""
        if self.spec_augment is None:
            return None
        frames, bins = self.spectrogram.frames, self.spectrogram.features.n_bins
        rngs = [sample_rng(self.seed, epoch, key, view, "strips") for view in range(self.views)]
        return torch.from_numpy(np.stack([self.spec_augment.draw(frames, bins, rng) for rng in rngs]))

    def _masks(self, samples: list[tuple[int, int, Place]]) -> MaskBatch | None:
        """The masks of all views of some samples."""
        if self.mask is None:
            return None
        draws = [
            Draw.of(self.seed, epoch, self.manifest.key(index), view, place, Cues(), self.part)
            for index, epoch, place in samples
            for view in range(self.views)
        ]
        return self.mask.draw(self.grid, draws)

    def _weighted(self, mask: MaskBatch, length: torch.Tensor) -> MaskBatch:
        """Targets that lie wholly behind the end of the sound count nothing."""
        heard = self.spectrogram.n_frames(length).clamp(min=1)
        if int(heard.min()) > (self.grid.shape[0] - 1) * self.grid.patch[0]:
            return mask
        column = mask.target // self.grid.shape[1]
        return replace(mask, weight=mask.weight * (column * self.grid.patch[0] < heard[:, None]))


def mono(waveform: torch.Tensor) -> torch.Tensor:
    """The mean of the channels of float32 (B, C, n), float32 (B, n)."""
    return waveform[:, 0] if waveform.shape[1] == 1 else waveform.mean(dim=1)


def joined(parts: list[AudioBatch]) -> AudioBatch:
    """One batch of all."""
    if len(parts) == 1:
        return parts[0]
    tensors = ("waveform", "length", "spectrogram", "label", "start_s", "strips", "mixed_label", "share")
    first = parts[0]
    cat: dict[str, Any] = {
        n: None if getattr(first, n) is None else together([getattr(p, n) for p in parts]) for n in tensors
    }
    masks = [part.mask for part in parts if part.mask is not None]
    return AudioBatch(
        **cat, mask=MaskBatch.concatenated(masks) if masks else None, key=[key for part in parts for key in part.key]
    )
