"""The audio sampler: it draws segments, reads and decodes them, augments, and makes spectrograms and masks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ....shards.errors import SampleError
from ....shards.format.manifest import Manifest
from ....shards.stores.base import Announcement, Range
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

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Partner:
    """The sound that mixup adds to a view; `share` is the weight of the view's own sound."""

    plan: SoundPlan
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundRequest:
    """The draws of a sample: its segment, and for each view the mixup partner or None."""

    wanted: Wanted
    key: str
    plan: SoundPlan
    partners: tuple[Partner | None, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The byte ranges of the sound and of all partners."""
        return self.plan.ranges + tuple(one for own in self.partners if own is not None for one in own.plan.ranges)


@dataclass(kw_only=True, slots=True)
class SoundDraft:
    """The memory of a batch of B views. With k views per sample, row r is the views [r k, (r + 1) k).

    waveform: float32 (B, C, n). spectrogram: float32 (B, T, F); None if it is made on the device. length, label,
    mixed_label: int64 (B,). start_s: float64 (B,), seconds. share: float32 (B,). strips: int64 (B, 4), or None. key,
    maps (masks): one per view; maps are None until they are drawn.
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
    """Makes host batches of sounds. It holds only settings, so it can be sent to worker processes.

    Every random draw is a function of (seed, epoch, key, view). The views of a sample share the segment; each view has
    its own shift, gain, mixup partner, strips and mask. on_device: leaves the spectrograms to the finish. part: as in
    `Draw`, for a sound that is one part of a sample.
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
        """Whether the mask depends on the progress of the run."""
        return self.pattern is not None and self.pattern.needs_progress

    @property
    def sounds(self) -> SoundReader:
        """The reader of the sounds."""
        return SoundReader(manifest=self.manifest, component=self.component, clip=self.clip, seed=self.seed)

    def request(self, wanted: Wanted) -> SoundRequest:
        """Draws the segment and the mixup partners of a sample, and finds the byte ranges to read."""
        return self.request_of(wanted, *self.sounds.segment(wanted.index, wanted.epoch))

    def request_of(self, wanted: Wanted, first: int, stop: int) -> SoundRequest:
        """The request of the given segment [first, stop), in samples at the stored rate."""
        key = self.manifest.key(wanted.index)
        return SoundRequest(
            wanted=wanted,
            key=key,
            plan=self.sounds.planned(wanted.index, first, stop),
            partners=tuple(self._partner(wanted.epoch, key, view) for view in range(self.views)),
        )

    def announce(self, request: SoundRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[object]) -> SoundDraft:
        """The memory of a batch of some requests."""
        n, spectrogram = len(requests) * self.views, self.spectrogram
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
        """Draws the masks of a row; no mask needs the content of a sound."""
        if self.pattern is not None:
            wanted = request.wanted
            for view in range(self.views):
                draw = Draw.of(self.seed, wanted.epoch, request.key, view, wanted.place, Cues(), self.part)
                draft.maps[row * self.views + view] = self.pattern.maps(self.grid, draw)

    def fill(self, request: SoundRequest, draft: SoundDraft, row: int, stats: Stats) -> None:
        """Reads and decodes a row, and makes its views; raises SampleError if the sound is unusable."""
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
        """The host batch; the views of a sample are consecutive rows."""
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
        """The masks of all views, or None; targets that lie wholly in the padding have weight 0."""
        if self.pattern is None:
            return None
        masks = self.pattern.batched(self.grid, [own for own in draft.maps if own is not None])
        return self._weighted(masks, draft.length)

    def _partner(self, epoch: int, key: str, view: int) -> Partner | None:
        """Draws the mixup partner of a view; None for no mixing, or if the partner has no sound."""
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
        """Applies roll and gain to the views' sounds, float32 (n, C), and writes them to `room`, float32 (views, C, n).

        The rest of `room` is filled with zeros.
        """
        for view, (sound, to) in enumerate(zip(sounds, room.numpy(), strict=True)):
            moved = sound
            if self.roll_gain is not None:
                moved = self.roll_gain(sound, sample_rng(self.seed, epoch, key, view, "roll"))
            to[:, : len(moved)] = moved.T
            to[:, len(moved) :] = 0

    def _mixed(
        self, index: int, sound: npt.NDArray[np.float32], partner: Partner | None, stats: Stats
    ) -> tuple[npt.NDArray[np.float32], int, float]:
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

    def _strips(self, epoch: int, key: str) -> Tensor | None:
        """Draws the SpecAugment strips of the views, int64 (views, 4)."""
        if self.spec_augment is None:
            return None
        frames, bins = self.spectrogram.frames, self.spectrogram.features.n_bins
        rngs = [sample_rng(self.seed, epoch, key, view, "strips") for view in range(self.views)]
        return torch.from_numpy(np.stack([self.spec_augment.draw(frames, bins, rng) for rng in rngs]))

    def _weighted(self, mask: MaskBatch, length: Tensor) -> MaskBatch:
        """The mask with weight 0 for the targets that lie wholly behind the end of the sound."""
        heard = self.spectrogram.n_frames(length).clamp(min=1)
        if int(heard.min()) > (self.grid.shape[0] - 1) * self.grid.patch[0]:
            return mask
        column = mask.target // self.grid.shape[1]
        return replace(mask, weight=mask.weight * (column * self.grid.patch[0] < heard[:, None]))


def mono(waveform: Tensor) -> Tensor:
    """The mean over the channels of waveforms, float32 (B, C, n) to (B, n)."""
    return waveform[:, 0] if waveform.shape[1] == 1 else waveform.mean(dim=1)
