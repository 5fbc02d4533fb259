"""Rows of audio: draw segments, read, decode and augment them, and compute spectrograms.

Also rows of noisy mixtures: audio mixed with noise at a drawn signal-to-noise ratio.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.augment.transform import Transform, change_waveform
from maskstream.pipelines.masks import Cues, Mask, MaskBatch, TokenGrid
from maskstream.pipelines.masks.core import read_only
from maskstream.pipelines.modalities.rows import BatchRows, Elsewhere, Item, Items, Masked, Memory, RowMaker, Traits
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s
from maskstream.shards.config import Config
from maskstream.shards.errors import SampleError
from maskstream.shards.limits import NaturalFloat, PositiveInt
from maskstream.shards.stores.base import Range, Store

from .batch import AudioBatch, NoisyBatch
from .reader import SoundPlan, SoundReader
from .spectrogram import Spectrogram

log = logging.getLogger(__name__)
CUES = frozenset({"waveform", "spectrogram"})
"""Mask inputs available for audio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Partner:
    """Audio that mixup adds to a view; `share` is the weight of the view's own audio."""

    plan: SoundPlan
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioPlan:
    """Segment of a sample, and for each view the mixup partner or None."""

    sound: SoundPlan
    partners: tuple[Partner | None, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges of the audio and of all partners."""
        return self.sound.ranges + tuple(one for own in self.partners if own is not None for one in own.plan.ranges)


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioRowMaker(RowMaker[AudioPlan, AudioBatch]):
    """Creates rows of audio.

    The views of a sample share the segment; each view has its own shift, gain, transform, mixup partner, strips and
    mask.
    """

    sounds: SoundReader
    spectrogram: Spectrogram
    grid: TokenGrid
    mask: Mask | None
    spec_augment: SpecAugment | None
    roll_gain: RollGain | None = None
    transform: Transform | None = None
    mixup: Mixup | None = None
    on_device: bool = False
    """Leave the spectrograms to a device transform."""
    part: str = ""
    """As in `Draw`, for audio that is one part of a sample."""

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the spectrogram."""
        return (Masked("mask", self.mask, self.grid, self.part),)

    @property
    def traits(self) -> Traits:
        """Parts of a mixture must have the same augmentation tensors."""
        return Traits(
            form={
                "mixup": "yes" if self.mixup else "no",
                "spec_augment": "yes" if self.spec_augment else "no",
                "on_device": self.on_device,
            }
        )

    def plan(self, items: Items) -> list[AudioPlan]:
        """Draw the segment and mixup partners of each sample and find the byte ranges to read."""
        return [
            AudioPlan(
                sound=self.sounds.drawn(item.index, item.epoch),
                partners=tuple(self._draw_partner(item, view) for view in range(item.views)),
            )
            for item in items
        ]

    def layout(self, memory: Memory[AudioPlan]) -> AudioBatch:
        """Create the empty batch."""
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

    def fill(self, rows: BatchRows[AudioPlan], batch: AudioBatch, stats: Stats) -> None:
        """Read and decode audio and create its views.

        Raises:
            SampleError: A sample is unusable.
        """
        for item, plan, own in rows:
            index, labels = item.index, item.manifest.label
            sound = self.sounds.sound(plan.sound, stats)
            mixed = [self._mix_sounds(index, sound, partner, stats) for partner in plan.partners]
            with stats.stage("convert"):
                own.of(batch.length)[:] = [len(one) for one, _, _ in mixed]
                self._write(item, own.of(batch.waveform), [one for one, _, _ in mixed])
                strips = self._draw_strips(item)
                if strips is not None and batch.strips is not None:
                    batch.strips[own.slice] = strips
                if batch.spectrogram is not None:
                    out = batch.spectrogram[own.slice]
                    self.spectrogram(mono(batch.waveform[own.slice]), batch.length[own.slice], strips, out=out)
            if batch.mixed_label is not None and batch.share is not None:
                own.of(batch.mixed_label)[:] = [int(labels[other]) for _, other, _ in mixed]
                own.of(batch.share)[:] = [share for _, _, share in mixed]
            own.of(batch.start_s)[:] = plan.sound.first / int(self.sounds.facts["sample_rate"][index])

    def cues(
        self, rows: BatchRows[AudioPlan], batch: AudioBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        """Return the waveform and spectrogram of a view."""
        waveform, spectrogram = (
            None if of is None or name not in needs else read_only(of.numpy()[rows.starts[n] + view])
            for name, of in (("waveform", batch.waveform), ("spectrogram", batch.spectrogram))
        )
        return Cues(waveform=waveform, spectrogram=spectrogram)

    def join(self, batch: AudioBatch, plans: Iterable[AudioPlan], made: Mapping[str, Any]) -> AudioBatch:
        """Finish the batch; targets completely inside the padding have weight 0."""
        batch = replace(batch, **made)
        return replace(batch, mask=self.weighted(batch.mask, batch.length))

    def weighted(self, mask: MaskBatch | None, length: Tensor) -> MaskBatch | None:
        """Set the weight of targets completely behind the end of the audio to 0."""
        if mask is None:
            return None
        heard = self.spectrogram.n_frames(length).clamp(min=1)
        if int(heard.min()) > (self.grid.shape[0] - 1) * self.grid.patch[0]:
            return mask
        column = mask.target // self.grid.shape[1]
        return replace(mask, weight=mask.weight * (column * self.grid.patch[0] < heard[:, None]))

    def _draw_partner(self, item: Item, view: int) -> Partner | None:
        """Draw the mixup partner of a view; None for no mixing, or if the partner has no audio."""
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

    def _write(self, item: Item, room: Float32s, sounds: list[Float32s]) -> None:
        """Apply roll, gain and transform to the views' audio, float32 (n, C), and write it to `room`, float32 (views,
        C, n).

        The rest of `room` is set to 0.
        """
        for view, (sound, to) in enumerate(zip(sounds, room, strict=True)):
            moved = sound if self.roll_gain is None else self.roll_gain(sound, item.rng("roll", view))
            moved = change_waveform(self.transform, moved, partial(item.rng, view=view))
            to[:, : len(moved)] = moved.T
            to[:, len(moved) :] = 0

    def _mix_sounds(
        self, index: int, sound: Float32s, partner: Partner | None, stats: Stats
    ) -> tuple[Float32s, int, float]:
        """Mix audio with its partner; returns the mixture, float32 (n, C), the partner's index, and the original's
        weight.

        The mixture is as long as the longer of both. Without a usable partner, the audio is returned unchanged, with
        its own `index` and weight 1.
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

    def _draw_strips(self, item: Item) -> Tensor | None:
        """Draw the SpecAugment strips of the views, int64 (views, 4)."""
        if self.spec_augment is None:
            return None
        frames, bins = self.spectrogram.frames, self.spectrogram.features.n_bins
        return torch.from_numpy(np.stack([self.spec_augment.draw(frames, bins, rng) for rng in item.rngs("strips")]))


@dataclass(frozen=True, slots=True)
class Spectrograms:
    """Device transform that computes the spectrograms of a whole batch with torch."""

    of: Spectrogram

    def __call__(self, batch: AudioBatch, device: torch.device) -> AudioBatch:
        """Add spectrograms to the batch."""
        return replace(batch, spectrogram=self.of(mono(batch.waveform), batch.length, batch.strips))


def mono(waveform: Tensor) -> Tensor:
    """Average the channels of waveforms, float32 (B, C, n) to (B, n)."""
    return waveform[:, 0] if waveform.shape[1] == 1 else waveform.mean(dim=1)


SPEED_OF_SOUND = 343.0
"""In metres per second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicrophoneLine(Config):
    """Linear microphone array with a far-field source, without reverberation.

    The angle between source and array is drawn uniformly in [0, pi]. Microphone m receives the signal m * spacing_m *
    cos(angle) / 343 seconds after microphone 0 (fractional delays), with the same amplitude.

    Attributes:
        count: Number of microphones.
        spacing_m: Distance between microphones in metres.
    """

    count: PositiveInt = 4
    spacing_m: NaturalFloat = 0.05

    def hear(self, sound: Float32s, sample_rate: int, rng: np.random.Generator) -> Float32s:
        """Simulate the channels, float32 (n, count), for audio, float32 (n,), from a random direction.

        Delays are relative to the centre of the array; samples shifted beyond the ends are cut off.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyPlan(Elsewhere):
    """Segment of the clean audio, and segment of the noise with its store (None if it is generated).

    The shards of two splits may have the same names, so the ranges of the two stores are separate.
    """

    clean: SoundPlan
    noise: tuple[Store, SoundPlan] | None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges of the clean audio, in its split's store."""
        return self.clean.ranges

    @property
    def elsewhere(self) -> tuple[Store, Sequence[Range]] | None:
        """Byte ranges of the noise, with its store."""
        return None if self.noise is None else (self.noise[0], self.noise[1].ranges)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyRowMaker(RowMaker[NoisyPlan, NoisyBatch]):
    """Creates rows of noisy mixtures.

    Every random draw (both segments, both directions, the noise, the ratio) is a function of (seed, epoch, key). All
    channels of a recording are cut at the same samples, so the delays between microphones are preserved. `line`,
    `snr_db` and `slope` are as in `NoisyData`.
    """

    clean: SoundReader
    """Reader of the clean split."""
    noise: SoundReader | None
    """Reader of the noise split; None generates noise."""
    line: MicrophoneLine | None
    snr_db: tuple[float, float]
    slope: tuple[float, float]

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Empty: nothing is masked."""
        return ()

    @property
    def traits(self) -> Traits:
        """The identity includes both splits."""
        if self.noise is None:
            return Traits()
        return Traits(identity={"dataset": f"{self.clean.manifest.fingerprint} with {self.noise.manifest.fingerprint}"})

    def plan(self, items: Items) -> list[NoisyPlan]:
        """Draw the segments of audio and noise and find their byte ranges."""
        return [
            NoisyPlan(clean=self.clean.drawn(item.index, item.epoch), noise=self._draw_noise_of(item)) for item in items
        ]

    def _draw_noise_of(self, item: Item) -> tuple[Store, SoundPlan] | None:
        if self.noise is None:
            return None
        other = int(item.rng("noise").integers(len(self.noise.manifest)))
        return self.noise.manifest.store, self.noise.drawn(other, item.epoch)

    def layout(self, memory: Memory[NoisyPlan]) -> NoisyBatch:
        """Create the empty batch."""
        clip = self.clean.clip
        shape = (clip.n_channels if self.line is None else self.line.count, clip.n_samples)
        return NoisyBatch(
            mixture=memory(np.float32, *shape),
            clean=memory(np.float32, *shape),
            snr_db=memory(np.float32),
            key=memory.key,
            label=memory.label,
        )

    def fill(self, rows: BatchRows[NoisyPlan], batch: NoisyBatch, stats: Stats) -> None:
        """Read, decode and mix audio.

        Raises:
            SampleError: The audio or its noise is unusable.
        """
        for item, plan, own in rows:
            clean = self._heard(self.clean, plan.clean, item.rng("direction"), stats)
            if self.noise is None or plan.noise is None:
                noise = self._placed(self._drawn(item.rng("noise")), item.rng("noise direction"))
            else:
                noise = self._heard(self.noise, plan.noise[1], item.rng("noise direction"), stats)
            snr_db = float(item.rng("snr").uniform(*self.snr_db))
            with stats.stage("convert"):
                own.of(batch.clean)[:] = clean.T
                own.of(batch.mixture)[:] = (clean + scale_noise(clean, noise, snr_db)).T
            own.of(batch.snr_db)[:] = snr_db

    def _heard(self, reader: SoundReader, plan: SoundPlan, rng: np.random.Generator, stats: Stats) -> Float32s:
        """Return the segment at all microphones, float32 (n, M), zero-mean and padded with zeros at the end.

        Raises:
            SampleError: The segment is silent.
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

    def _placed(self, sound: Float32s, rng: np.random.Generator) -> Float32s:
        line = self.line or MicrophoneLine(count=self.clean.clip.n_channels, spacing_m=0.0)
        return line.hear(sound, self.clean.clip.sample_rate, rng)

    def _drawn(self, rng: np.random.Generator) -> Float32s:
        """Generate Gaussian noise, float32 (n,), whose power falls with frequency as f ** -slope with a drawn slope."""
        n = self.clean.clip.n_samples
        spectrum = np.fft.rfft(rng.standard_normal(n))
        spectrum *= np.maximum(np.arange(len(spectrum)), 1.0) ** (-rng.uniform(*self.slope) / 2)
        return np.fft.irfft(spectrum, n=n).astype(np.float32)


def scale_noise(clean: Float32s, noise: Float32s, snr_db: float) -> Float32s:
    """Scale noise, float32 (n, M), to the signal-to-noise ratio `snr_db` in decibels, over all channels."""
    ratio = np.square(clean, dtype=np.float64).sum() / np.square(noise, dtype=np.float64).sum()
    return noise * np.float32(np.sqrt(ratio / 10 ** (snr_db / 10)))
