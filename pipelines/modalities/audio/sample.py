"""One sound on its way to a batch: draw the stretch, read its frames, decode, resample, augment, spectrogram, mask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ....shards.errors import SampleError
from ....shards.format.manifest import Manifest
from ....shards.stores.base import Range
from ...augment.sound import Mixup, RollGain, SpecAugment
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...masks.core.batch import MaskBatch
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .batch import AudioBatch
from .clip import AudioClip
from .reader import SoundPlan, SoundReader
from .spectrogram import Spectrogram


@dataclass(frozen=True, kw_only=True, slots=True)
class Partner:
    """A sound that is mixed into a view, and the share that the view's own keeps."""

    plan: SoundPlan
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundRequest:
    """What was drawn for a sound before a byte was read: its stretch, and for each view what is mixed in, if any."""

    wanted: Wanted
    key: str
    plan: SoundPlan
    partners: tuple[Partner | None, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Those of all the sounds."""
        return self.plan.ranges + tuple(one for own in self.partners if own is not None for one in own.plan.ranges)


@dataclass(kw_only=True, slots=True)
class SoundDraft:
    """The memory of a batch; row r is views r k to (r + 1) k of it.

    waveform: float32 (B, C, n). spectrogram: float32 (B, T, F), None where it is made of whole batches. length, label,
    mixed_label: int64 (B,). start_s: float64 (B,). share: float32 (B,). strips: int64 (B, 4), or None. key: of each
    view. maps: of each view's mask, None until it is drawn.
    """

    waveform: Tensor
    spectrogram: Tensor | None
    length: Tensor
    label: Tensor
    mixed_label: Tensor
    start_s: Tensor
    share: Tensor
    strips: Tensor | None
    key: list[str]
    maps: list[Maps | None]


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
    pattern: Mask | None
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
        return self.pattern is not None and self.pattern.needs_progress

    @property
    def sounds(self) -> SoundReader:
        """What reads them."""
        return SoundReader(manifest=self.manifest, component=self.component, clip=self.clip, seed=self.seed)

    def request(self, wanted: Wanted) -> SoundRequest:
        """Draws the stretch of a sound, and the sounds that are mixed in."""
        return self.request_of(wanted, *self.sounds.stretch(wanted.index, wanted.epoch))

    def request_of(self, wanted: Wanted, first: int, stop: int) -> SoundRequest:
        """The same of its samples [first, stop), counted at the rate that it is stored at."""
        key = self.manifest.key(wanted.index)
        return SoundRequest(
            wanted=wanted,
            key=key,
            plan=self.sounds.planned(wanted.index, first, stop),
            partners=tuple(self._partner(wanted.epoch, key, view) for view in range(self.views)),
        )

    def allocate(self, rows: int) -> SoundDraft:
        """The memory of a batch of so many sounds."""
        n, spectrogram = rows * self.views, self.spectrogram
        return SoundDraft(
            waveform=torch.empty((n, self.clip.n_channels, self.clip.n_samples)),
            spectrogram=None if self.on_device else torch.empty((n, spectrogram.frames, spectrogram.features.n_bins)),
            length=torch.empty(n, dtype=torch.int64),
            label=torch.empty(n, dtype=torch.int64),
            mixed_label=torch.empty(n, dtype=torch.int64),
            start_s=torch.empty(n, dtype=torch.float64),
            share=torch.empty(n),
            strips=None if self.spec_augment is None else torch.empty((n, 4), dtype=torch.int64),
            key=[""] * n,
            maps=[None] * n,
        )

    def mask(self, request: SoundRequest, draft: SoundDraft, row: int) -> None:
        """Draws the masks of a sound's views, which follow no sound."""
        if self.pattern is not None:
            wanted = request.wanted
            for view in range(self.views):
                draw = Draw.of(self.seed, wanted.epoch, request.key, view, wanted.place, Cues(), self.part)
                draft.maps[row * self.views + view] = self.pattern.maps(self.grid, draw)

    def fill(self, request: SoundRequest, draft: SoundDraft, row: int, stats: Stats) -> None:
        """Writes a sound's views; SampleError where it cannot be used."""
        wanted, key, plan = request.wanted, request.key, request.plan
        own = slice(row * self.views, (row + 1) * self.views)
        sound = self.sounds.sound(plan, stats)
        mixed = [self._mixed(plan.index, sound, partner, stats) for partner in request.partners]
        with stats.stage("convert"):
            draft.length[own] = torch.tensor([len(one) for one, _, _ in mixed])
            self._write(draft.waveform[own], [one for one, _, _ in mixed], wanted.epoch, key)
            strips = self._strips(wanted.epoch, key)
            if strips is not None and draft.strips is not None:
                draft.strips[own] = strips
            if draft.spectrogram is not None:
                self.spectrogram(mono(draft.waveform[own]), draft.length[own], strips, out=draft.spectrogram[own])
        labels, rate = self.manifest.label, int(self.sounds.facts["sample_rate"][plan.index])
        draft.label[own] = int(labels[plan.index])
        draft.mixed_label[own] = torch.tensor([int(labels[other]) for _, other, _ in mixed])
        draft.share[own] = torch.tensor([share for _, _, share in mixed], dtype=torch.float32)
        draft.start_s[own] = plan.first / rate
        draft.key[own] = [key] * self.views

    def join(self, draft: SoundDraft) -> AudioBatch:
        """The batch; the views of a sample come one after the other."""
        mixed = self.mixup is not None
        return AudioBatch(
            waveform=draft.waveform,
            length=draft.length,
            spectrogram=draft.spectrogram,
            mask=self.mask_batch(draft),
            label=draft.label,
            key=draft.key,
            start_s=draft.start_s,
            strips=draft.strips,
            mixed_label=draft.mixed_label if mixed else None,
            share=draft.share if mixed else None,
        )

    def mask_batch(self, draft: SoundDraft) -> MaskBatch | None:
        """The masks of all views."""
        if self.pattern is None:
            return None
        masks = self.pattern.batched(self.grid, [own for own in draft.maps if own is not None])
        return self._weighted(masks, draft.length)

    def _partner(self, epoch: int, key: str, view: int) -> Partner | None:
        """The stretch that the epoch shows of another sound, which is mixed into a view; None where none is."""
        if self.mixup is None:
            return None
        drawn = self.mixup.draw(len(self.manifest), sample_rng(self.seed, epoch, key, view, "mixup"))
        if drawn is None:
            return None
        other, share = drawn
        try:
            return Partner(plan=self.sounds.drawn(other, epoch), share=share)
        except SampleError:
            return None

    def _write(self, room: Tensor, sounds: list[npt.NDArray[np.float32]], epoch: int, key: str) -> None:
        """Writes the views' sounds, float32 (n, C), moved and scaled, into float32 (views, C, n), zeros behind them."""
        for view, (sound, to) in enumerate(zip(sounds, room.numpy(), strict=True)):
            moved = sound
            if self.roll_gain is not None:
                moved = self.roll_gain(sound, sample_rng(self.seed, epoch, key, view, "roll"))
            to[:, : len(moved)] = moved.T
            to[:, len(moved) :] = 0

    def _mixed(
        self, index: int, sound: npt.NDArray[np.float32], partner: Partner | None, stats: Stats
    ) -> tuple[npt.NDArray[np.float32], int, float]:
        """The sound with another one mixed in, as long as the longer; the other's index, and the share of its own.

        Where nothing is mixed in, or the other cannot be used, the index is its own and the share 1.
        """
        if partner is None:
            return sound, index, 1.0
        try:
            other = self.sounds.sound(partner.plan, stats)
        except SampleError:
            return sound, index, 1.0
        out = np.zeros((max(len(sound), len(other)), sound.shape[1]), dtype=np.float32)
        out[: len(sound)] += np.float32(partner.share) * (sound - sound.mean())
        out[: len(other)] += np.float32(1 - partner.share) * (other - other.mean())
        return out, partner.plan.index, partner.share

    def _strips(self, epoch: int, key: str) -> Tensor | None:
        """Those of the views, int64 (views, 4)."""
        if self.spec_augment is None:
            return None
        frames, bins = self.spectrogram.frames, self.spectrogram.features.n_bins
        rngs = [sample_rng(self.seed, epoch, key, view, "strips") for view in range(self.views)]
        return torch.from_numpy(np.stack([self.spec_augment.draw(frames, bins, rng) for rng in rngs]))

    def _weighted(self, mask: MaskBatch, length: Tensor) -> MaskBatch:
        """Targets that lie wholly behind the end of the sound count nothing."""
        heard = self.spectrogram.n_frames(length).clamp(min=1)
        if int(heard.min()) > (self.grid.shape[0] - 1) * self.grid.patch[0]:
            return mask
        column = mask.target // self.grid.shape[1]
        return replace(mask, weight=mask.weight * (column * self.grid.patch[0] < heard[:, None]))


def mono(waveform: Tensor) -> Tensor:
    """The mean of the channels of float32 (B, C, n), float32 (B, n)."""
    return waveform[:, 0] if waveform.shape[1] == 1 else waveform.mean(dim=1)
