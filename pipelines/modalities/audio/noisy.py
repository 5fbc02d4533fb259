"""The noisy sampler: it mixes a sound with noise at a drawn signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.stores.base import Announcement, Range, Together
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .batch import NoisyBatch
from .microphones import MicrophoneLine
from .reader import SoundPlan, SoundReader

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyRequest:
    """The draws of a sample: the segment of the clean sound, and that of the noise (None if it is generated).

    The shards of two splits may have the same names, so the ranges of the two stores are separate.
    """

    wanted: Wanted
    key: str
    clean: SoundPlan
    noise: SoundPlan | None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The byte ranges of the sound, in the store of its split."""
        return self.clean.ranges

    @property
    def noise_ranges(self) -> tuple[Range, ...]:
        """The byte ranges of the noise, in the store of its split; empty if it is generated."""
        return () if self.noise is None else self.noise.ranges


@dataclass(kw_only=True, slots=True)
class NoisyDraft:
    """The memory of a batch of B sounds and M microphones.

    mixture, clean: float32 (B, M, n). snr_db: float32 (B,). label: int64 (B,). key: one per sound.
    """

    mixture: Floats
    clean: Floats
    snr_db: Floats
    label: npt.NDArray[np.int64]
    key: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisySampler:
    """Makes host batches of noisy mixtures. It holds only settings, so it can be sent to worker processes.

    Every random draw (both segments, both directions, the noise, the ratio) is a function of (seed, epoch, key). All
    channels of a recording are cut at the same samples, so the delays between microphones are kept.

    clean, noise: the readers of the two splits; noise None generates noise. line, snr_db, slope: as in `NoisyData`.
    """

    clean: SoundReader
    noise: SoundReader | None
    line: MicrophoneLine | None
    snr_db: tuple[float, float]
    slope: tuple[float, float]

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.clean.seed

    @property
    def needs_progress(self) -> bool:
        """False: nothing depends on the progress of the run."""
        return False

    @property
    def microphones(self) -> int:
        """The number of channels of a mixture."""
        return self.clean.clip.n_channels if self.line is None else self.line.count

    def request(self, wanted: Wanted) -> NoisyRequest:
        """Draws the segment of the sound, the noise and its segment, and finds their byte ranges."""
        key, noise = self.clean.manifest.key(wanted.index), None
        if self.noise is not None:
            other = int(self._rng(wanted, key, "noise").integers(len(self.noise.manifest)))
            noise = self.noise.drawn(other, wanted.epoch)
        return NoisyRequest(wanted=wanted, key=key, clean=self.clean.drawn(wanted.index, wanted.epoch), noise=noise)

    def announce(self, request: NoisyRequest) -> Announcement:
        """Says that the ranges of a request will be read soon, each to the store of its split."""
        clean = self.clean.manifest.store.announce(request.ranges)
        if self.noise is None:
            return clean
        return Together((clean, self.noise.manifest.store.announce(request.noise_ranges)))

    def allocate(self, requests: Sequence[object]) -> NoisyDraft:
        """The memory of a batch of some requests."""
        shape = (len(requests), self.microphones, self.clean.clip.n_samples)
        return NoisyDraft(
            mixture=np.empty(shape, dtype=np.float32),
            clean=np.empty(shape, dtype=np.float32),
            snr_db=np.empty(len(requests), dtype=np.float32),
            label=np.empty(len(requests), dtype=np.int64),
            key=[""] * len(requests),
        )

    def mask(self, request: NoisyRequest, draft: NoisyDraft, row: int) -> None:
        """Does nothing: noisy mixtures have no mask."""

    def fill(self, request: NoisyRequest, draft: NoisyDraft, row: int, stats: Stats) -> None:
        """Reads, decodes and mixes a row; raises SampleError if the sound or its noise is unusable."""

        def rng(purpose: str) -> np.random.Generator:
            return self._rng(request.wanted, request.key, purpose)

        clean = self._heard(self.clean, request.clean, rng("direction"), stats)
        if self.noise is None or request.noise is None:
            noise = self._placed(self._drawn(rng("noise")), rng("noise direction"))
        else:
            noise = self._heard(self.noise, request.noise, rng("noise direction"), stats)
        snr_db = float(rng("snr").uniform(*self.snr_db))
        with stats.stage("convert"):
            draft.clean[row] = clean.T
            draft.mixture[row] = (clean + scaled_noise(clean, noise, snr_db)).T
        draft.snr_db[row] = snr_db
        draft.label[row] = self.clean.manifest.label[request.wanted.index]
        draft.key[row] = request.key

    def join(self, draft: NoisyDraft) -> NoisyBatch:
        """The host batch."""
        return NoisyBatch(
            mixture=torch.from_numpy(draft.mixture),
            clean=torch.from_numpy(draft.clean),
            snr_db=torch.from_numpy(draft.snr_db),
            label=torch.from_numpy(draft.label),
            key=draft.key,
        )

    def _rng(self, wanted: Wanted, key: str, purpose: str) -> np.random.Generator:
        return sample_rng(self.seed, wanted.epoch, key, 0, purpose)

    def _heard(self, reader: SoundReader, plan: SoundPlan, rng: np.random.Generator, stats: Stats) -> Floats:
        """The segment at all microphones, float32 (n, M), zero-mean and padded with zeros at the end.

        Raises SampleError if the segment is silent.
        """
        sound = reader.sound(plan, stats)
        with stats.stage("convert"):
            sound = sound - sound.mean(axis=0)
            if not np.square(sound).sum() > 0:
                raise reader.manifest.sample_error(
                    plan.index, reader.component, f"samples {plan.first} to {plan.stop} are silent"
                )
            whole = np.zeros((reader.clip.n_samples, sound.shape[1]), dtype=np.float32)
            whole[: len(sound)] = sound
            return whole if self.line is None else self._placed(whole[:, 0], rng)

    def _placed(self, sound: Floats, rng: np.random.Generator) -> Floats:
        line = self.line or MicrophoneLine(count=self.clean.clip.n_channels, spacing_m=0.0)
        return line.hear(sound, self.clean.clip.sample_rate, rng)

    def _drawn(self, rng: np.random.Generator) -> Floats:
        """Gaussian noise, float32 (n,), whose power falls with frequency as f ** -slope with a drawn slope."""
        n = self.clean.clip.n_samples
        spectrum = np.fft.rfft(rng.standard_normal(n))
        spectrum *= np.maximum(np.arange(len(spectrum)), 1.0) ** (-rng.uniform(*self.slope) / 2)
        return np.fft.irfft(spectrum, n=n).astype(np.float32)


def scaled_noise(clean: Floats, noise: Floats, snr_db: float) -> Floats:
    """The noise, float32 (n, M), scaled to the signal-to-noise ratio `snr_db` in decibels, over all channels."""
    ratio = np.square(clean, dtype=np.float64).sum() / np.square(noise, dtype=np.float64).sum()
    return noise * np.float32(np.sqrt(ratio / 10 ** (snr_db / 10)))
