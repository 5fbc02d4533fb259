"""Rows of sounds: draws segments, reads and decodes them, augments, and makes spectrograms."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.modalities.rows import Item, Masked, Memory, Planned, RowMaker, SampleRows
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import SampleError
from maskstream.shards.stores.base import Range

from .batch import AudioBatch
from .reader import SoundPlan, SoundReader
from .spectrogram import Spectrogram

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Partner:
    """The sound that mixup adds to a view; `share` is the weight of the view's own sound."""

    plan: SoundPlan
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioPlan:
    """The segment of a sample, and for each view the mixup partner or None."""

    sound: SoundPlan
    partners: tuple[Partner | None, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The byte ranges of the sound and of all partners."""
        return self.sound.ranges + tuple(one for own in self.partners if own is not None for one in own.plan.ranges)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioRowMaker(RowMaker[AudioPlan, AudioBatch]):
    """Makes rows of sounds.

    The views of a sample share the segment; each view has its own shift, gain, mixup partner, strips and mask.
    on_device: leaves the spectrograms to the finish. part: as in `Draw`, for a sound that is one part of a sample.
    """

    sounds: SoundReader
    spectrogram: Spectrogram
    grid: TokenGrid
    mask: Mask | None
    spec_augment: SpecAugment | None
    roll_gain: RollGain | None = None
    mixup: Mixup | None = None
    on_device: bool = False
    part: str = ""

    @property
    def masks(self) -> tuple[Masked, ...]:
        """The mask of the spectrogram."""
        return (Masked("mask", self.mask, self.grid, self.part),)

    @property
    def form(self) -> Mapping[str, object]:
        """Whether there are tensors for augmentations."""
        return {
            "mixup": "yes" if self.mixup else "no",
            "spec_augment": "yes" if self.spec_augment else "no",
            "on_device": self.on_device,
        }

    def plan(self, item: Item) -> AudioPlan:
        """Draws the segment and the mixup partners of a sample, and finds the byte ranges to read."""
        return AudioPlan(
            sound=self.sounds.drawn(item.index, item.epoch),
            partners=tuple(self._partner(item, view) for view in range(item.views)),
        )

    def layout(self, memory: Memory[AudioPlan]) -> AudioBatch:
        """The empty batch."""
        clip, spectrogram = self.sounds.clip, self.spectrogram
        return AudioBatch(
            waveform=memory(np.float32, clip.n_channels, clip.n_samples),
            length=memory(np.int64),
            spectrogram=(
                None if self.on_device else memory(np.float32, spectrogram.frames, spectrogram.features.n_bins)
            ),
            mask=None,
            start_s=memory(np.float64),
            strips=None if self.spec_augment is None else memory(np.int64, 4),
            mixed_label=None if self.mixup is None else memory(np.int64),
            share=None if self.mixup is None else memory(np.float32),
            key=memory.key,
            label=memory.label,
        )

    def fill(self, item: Item, plan: AudioPlan, batch: AudioBatch, own: SampleRows, stats: Stats) -> None:
        """Reads and decodes a sound, and makes its views; raises SampleError if it is unusable."""
        index, labels = item.index, item.manifest.label
        sound = self.sounds.sound(plan.sound, stats)
        mixed = [self._mixed(index, sound, partner, stats) for partner in plan.partners]
        with stats.stage("convert"):
            own.of(batch.length)[:] = [len(one) for one, _, _ in mixed]
            self._write(item, own.of(batch.waveform), [one for one, _, _ in mixed])
            strips = self._strips(item)
            if strips is not None and batch.strips is not None:
                batch.strips[own.slice] = strips
            if batch.spectrogram is not None:
                out = batch.spectrogram[own.slice]
                self.spectrogram(mono(batch.waveform[own.slice]), batch.length[own.slice], strips, out=out)
        if batch.mixed_label is not None and batch.share is not None:
            own.of(batch.mixed_label)[:] = [int(labels[other]) for _, other, _ in mixed]
            own.of(batch.share)[:] = [share for _, _, share in mixed]
        own.of(batch.start_s)[:] = plan.sound.first / int(self.sounds.facts["sample_rate"][index])

    def join(self, batch: AudioBatch, planned: Sequence[Planned[AudioPlan]]) -> AudioBatch:
        """The batch; targets that lie wholly in the padding have weight 0."""
        return replace(batch, mask=self.weighted(batch.mask, batch.length))

    def weighted(self, mask: MaskBatch | None, length: Tensor) -> MaskBatch | None:
        """The mask with weight 0 for the targets that lie wholly behind the end of the sound."""
        if mask is None:
            return None
        heard = self.spectrogram.n_frames(length).clamp(min=1)
        if int(heard.min()) > (self.grid.shape[0] - 1) * self.grid.patch[0]:
            return mask
        column = mask.target // self.grid.shape[1]
        return replace(mask, weight=mask.weight * (column * self.grid.patch[0] < heard[:, None]))

    def _partner(self, item: Item, view: int) -> Partner | None:
        """Draws the mixup partner of a view; None for no mixing, or if the partner has no sound."""
        if self.mixup is None:
            return None
        drawn = self.mixup.draw(len(item.manifest), item.rng("mixup", view))
        if drawn is None:
            return None
        other, share = drawn
        try:
            return Partner(plan=self.sounds.drawn(other, item.epoch), share=share)
        except SampleError:
            return None

    def _write(self, item: Item, room: Floats, sounds: list[Floats]) -> None:
        """Applies roll and gain to the views' sounds, float32 (n, C), and writes them to `room`, float32 (views, C, n).

        The rest of `room` is filled with zeros.
        """
        for view, (sound, to) in enumerate(zip(sounds, room, strict=True)):
            moved = sound if self.roll_gain is None else self.roll_gain(sound, item.rng("roll", view))
            to[:, : len(moved)] = moved.T
            to[:, len(moved) :] = 0

    def _mixed(self, index: int, sound: Floats, partner: Partner | None, stats: Stats) -> tuple[Floats, int, float]:
        """The mixture of a sound and its partner, float32 (n, C), the partner's index, and the sound's share.

        The mixture is as long as the longer of both. Without a usable partner it is the sound itself, with its own
        `index` and the share 1.
        """
        if partner is None:
            return sound, index, 1.0
        try:
            other = self.sounds.sound(partner.plan, stats)
        except SampleError as error:
            log.info("mixed with nothing: %s", error)
            return sound, index, 1.0
        out = np.zeros((max(len(sound), len(other)), sound.shape[1]), dtype=np.float32)
        out[: len(sound)] += np.float32(partner.share) * (sound - sound.mean())
        out[: len(other)] += np.float32(1 - partner.share) * (other - other.mean())
        return out, partner.plan.index, partner.share

    def _strips(self, item: Item) -> Tensor | None:
        """Draws the SpecAugment strips of the views, int64 (views, 4)."""
        if self.spec_augment is None:
            return None
        frames, bins = self.spectrogram.frames, self.spectrogram.features.n_bins
        return torch.from_numpy(np.stack([self.spec_augment.draw(frames, bins, rng) for rng in item.rngs("strips")]))


@dataclass(frozen=True, slots=True)
class Spectrograms:
    """The finish that makes the spectrograms of a whole batch with torch, on its device."""

    of: Spectrogram

    def __call__(self, batch: AudioBatch, device: torch.device) -> AudioBatch:
        """The batch with its spectrograms."""
        return replace(batch, spectrogram=self.of(mono(batch.waveform), batch.length, batch.strips))


def mono(waveform: Tensor) -> Tensor:
    """The mean over the channels of waveforms, float32 (B, C, n) to (B, n)."""
    return waveform[:, 0] if waveform.shape[1] == 1 else waveform.mean(dim=1)
