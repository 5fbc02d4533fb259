"""Rows of noisy mixtures: a sound is mixed with noise at a drawn signal-to-noise ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.modalities.rows import Item, Masked, Memory, RowMaker, SampleRows
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.config import Config
from maskstream.shards.stores.base import Range, Store

from .batch import NoisyBatch
from .reader import SoundPlan, SoundReader

SPEED_OF_SOUND = 343.0
"""In metres per second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicrophoneLine(Config):
    """`count` microphones in a line, `spacing_m` metres apart, and a source in the far field, without reverberation.

    The angle between source and line is drawn uniformly in [0, pi]. Microphone m receives the sound m * spacing_m *
    cos(angle) / 343 seconds after microphone 0 (fractional delays), with the same amplitude.
    """

    count: int = 4
    spacing_m: float = 0.05

    def __post_init__(self) -> None:
        if self.count < 1 or self.spacing_m < 0:
            raise ValueError(
                f"count must be at least 1 and spacing_m at least 0, got {self.count} and {self.spacing_m}"
            )

    def hear(
        self, sound: npt.NDArray[np.float32], sample_rate: int, rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """The channels of the sound, float32 (n,), from a drawn direction: float32 (n, count), delayed about the centre
        of the array; what the delays shift beyond the ends is cut off.
        """
        angle = rng.uniform(0, np.pi)
        step = self.spacing_m * np.cos(angle) / SPEED_OF_SOUND * sample_rate
        delays = step * (np.arange(self.count) - (self.count - 1) / 2)
        room = int(np.ceil(np.abs(delays).max())) + 1
        spectrum = np.fft.rfft(np.pad(sound, room))
        cycles = np.arange(len(spectrum)) / (len(sound) + 2 * room)
        turned = spectrum[:, None] * np.exp(-2j * np.pi * cycles[:, None] * delays)
        heard = np.fft.irfft(turned, n=len(sound) + 2 * room, axis=0)[room : room + len(sound)]
        return heard.astype(np.float32)


Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyPlan:
    """The segment of the clean sound, and that of the noise (None if it is generated).

    The shards of two splits may have the same names, so the ranges of the two stores are separate.
    """

    clean: SoundPlan
    noise: SoundPlan | None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The byte ranges of the sound, in the store of its split."""
        return self.clean.ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyRowMaker(RowMaker[NoisyPlan, NoisyBatch]):
    """Makes rows of noisy mixtures.

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
    def masks(self) -> tuple[Masked, ...]:
        """None: nothing is masked."""
        return ()

    def identity(self, split: Split) -> dict[str, Any]:
        """The split and that of the noise."""
        dataset = split.identity
        if self.noise is not None:
            dataset["dataset"] += f" with {self.noise.manifest.fingerprint}"
        return dataset

    def plan(self, item: Item) -> NoisyPlan:
        """Draws the segment of the sound, the noise and its segment, and finds their byte ranges."""
        noise = None
        if self.noise is not None:
            other = int(item.rng("noise").integers(len(self.noise.manifest)))
            noise = self.noise.drawn(other, item.epoch)
        return NoisyPlan(clean=self.clean.drawn(item.index, item.epoch), noise=noise)

    def other_ranges(self, plan: NoisyPlan) -> tuple[tuple[Store, tuple[Range, ...]], ...]:
        """The byte ranges of the noise, in the store of its split."""
        if self.noise is None or plan.noise is None:
            return ()
        return ((self.noise.manifest.store, plan.noise.ranges),)

    def layout(self, memory: Memory[NoisyPlan]) -> NoisyBatch:
        """The empty batch."""
        clip = self.clean.clip
        shape = (clip.n_channels if self.line is None else self.line.count, clip.n_samples)
        return NoisyBatch(
            mixture=memory(np.float32, *shape),
            clean=memory(np.float32, *shape),
            snr_db=memory(np.float32),
            key=memory.key,
            label=memory.label,
        )

    def fill(self, item: Item, plan: NoisyPlan, batch: NoisyBatch, own: SampleRows, stats: Stats) -> None:
        """Reads, decodes and mixes a sound; raises SampleError if the sound or its noise is unusable."""
        clean = self._heard(self.clean, plan.clean, item.rng("direction"), stats)
        if self.noise is None or plan.noise is None:
            noise = self._placed(self._drawn(item.rng("noise")), item.rng("noise direction"))
        else:
            noise = self._heard(self.noise, plan.noise, item.rng("noise direction"), stats)
        snr_db = float(item.rng("snr").uniform(*self.snr_db))
        with stats.stage("convert"):
            own.of(batch.clean)[:] = clean.T
            own.of(batch.mixture)[:] = (clean + scaled_noise(clean, noise, snr_db)).T
        own.of(batch.snr_db)[:] = snr_db

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
