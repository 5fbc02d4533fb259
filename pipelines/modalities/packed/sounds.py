"""Audio for packed rows: spectrograms of variable length from the manifest alone, and the tokens of a recording."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from maskstream.pipelines.augment.transform import Transform, change_waveform
from maskstream.pipelines.masks import Cues, TokenGrid
from maskstream.pipelines.modalities.audio.reader import AudioClip, SoundPlan, SoundReader
from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.rows import Item
from maskstream.pipelines.stream.order import GlobalBatch
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s, Int64s
from maskstream.shards.media.fbank import Fbank
from maskstream.shards.media.limits import MAX_SAMPLE_RATE
from maskstream.shards.stores.base import Range

from .native import NativeDraws, NativeSamples, Shape

_PIXELS = 12
"""Cost of decoding and transforming one audio sample, in pixels of an image, as measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundTokensPlan:
    """An audio segment to read, whose spectrogram becomes `shape` tokens of `patch` frames and bins."""

    sound: SoundPlan
    reader: SoundReader
    spectrogram: Spectrogram
    shape: Shape
    patch: int
    held: int
    transform: Transform | None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges of the segment."""
        return self.sound.ranges

    def fill(self, item: Item, out: Float32s, stats: Stats) -> Cues:
        """Write the tokens of the audio, float32 (t * f, p * p).

        Raises:
            SampleError: The audio is unusable.
        """
        sound, side, (t, f, _) = self.reader.sound(self.sound, stats), self.patch, self.shape
        with stats.stage("convert"):
            sound = change_waveform(self.transform, sound, item.rng)
            waveform = torch.zeros(1, self.reader.clip.n_samples)
            waveform[0, : len(sound)] = torch.from_numpy(sound).mean(dim=1)
            made = self.spectrogram(waveform, torch.tensor([len(sound)]))
            tokens = made.view(t, side, f, side).transpose(1, 2)
            torch.from_numpy(out).view(t, f, side, side).copy_(tokens)
        return Cues()


@dataclass(frozen=True, kw_only=True)
class NativeSounds(NativeSamples):
    """Audio of a split at its native length, up to the length of `clip` and `most` tokens.

    Longer audio is cut; audio with fewer than `least` tokens is extended as `clip.short` specifies.

    Raises:
        ValueError: Bins are not whole patches, or audio of one patch of frames already has more than `most` tokens.
    """

    kind: ClassVar[str] = "sound"
    dtype: ClassVar[type[np.uint8] | type[np.float32]] = np.float32
    clip: AudioClip
    spectrogram: Spectrogram
    """Normalisation of the features; its `frames` are set per recording."""
    transform: Transform | None = None
    steps: tuple[int, int] = field(init=False)
    bands: int = field(init=False)

    def __post_init__(self) -> None:
        features, native, side = self.spectrogram.features, self.native, self.native.patch
        if features.sample_rate != self.clip.sample_rate:
            raise ValueError(
                f"sound has sample_rate={self.clip.sample_rate}, but features have "
                f"sample_rate={features.sample_rate}; use the same rate for both"
            )
        if features.n_bins % side:
            raise ValueError(
                f"patch={side} in Native does not divide {features.n_bins} bins evenly; change patch or features.n_bins"
            )
        bands = features.n_bins // side
        frames = round(self.clip.seconds * features.sample_rate / features.shift)
        most = min(native.limits[1] // bands, frames // side)
        if most < 1:
            raise ValueError(
                f"the shortest sound has {bands} tokens of {side} frames each; most={native.limits[1]} in "
                f"Native and sound.seconds={self.clip.seconds:g} ({frames} frames) must leave room for it"
            )
        object.__setattr__(self, "bands", bands)
        object.__setattr__(self, "steps", (min(-(-native.limits[0] // bands), most), most))

    def at(self, progress: float) -> Self:
        """Return the audio as drawn at a progress."""
        made = super().at(progress)
        if self.seconds is None:
            return made
        return replace(
            made, clip=replace(self.clip, seconds=min(round(self.seconds.at(progress), 9), self.clip.seconds))
        )

    @property
    def reader(self) -> SoundReader:
        """Reader of segments of the maximum length."""
        return SoundReader(manifest=self.manifest, component=self.components[0], clip=self.clip, seed=self.seed)

    @property
    def identity(self) -> dict[str, Any]:
        """Statistics that normalise the spectrograms."""
        return {"statistics": [self.spectrogram.mean, self.spectrogram.deviation]}

    @property
    def token_size(self) -> int:
        """Number of values of a token."""
        return self.native.patch**2

    @property
    def extremes(self) -> tuple[Shape, ...]:
        """The shortest and the longest recording."""
        few, many = self.steps
        return (few, self.bands, 1), (many, self.bands, 1)

    def draw(self, samples: GlobalBatch) -> NativeDraws:
        """Determine the lengths of some samples. A sample without usable audio has the shortest length."""
        component, indexes = self.manifest.component(self.components[0]), self.indexes(samples.indexes)
        n, rate = (component.facts[name][indexes].astype(np.int64) for name in ("n_samples", "sample_rate"))
        usable = (component.offset[indexes] > 0) & (n > 0) & (rate > 0) & (rate <= MAX_SAMPLE_RATE)
        # As a float, because a product of 64-bit numbers from a bad manifest may overflow.
        there = np.floor(np.where(usable, n, 0) * (self.clip.sample_rate / np.where(usable, rate, 1)))
        whole = np.minimum(there, self.clip.n_samples).astype(np.int64)
        steps = np.clip(self._frames(whole) // self.native.patch, *self.steps)
        shape = np.stack([steps, np.full_like(steps, self.bands), np.ones_like(steps)], axis=1)
        pixels = self._samples(steps * self.native.patch) * _PIXELS
        return NativeDraws(shape=shape, crop=np.zeros((len(steps), 2), np.int64), pixels=pixels)

    def grid(self, shape: Shape) -> TokenGrid:
        """Return the (time, freq) grid of a recording."""
        return TokenGrid(axes=("time", "freq"), shape=shape[:2], patch=(self.native.patch,) * 2)

    def plan(self, item: Item, shape: Shape, crop: tuple[int, int] | None) -> SoundTokensPlan:
        """Plan an audio segment.

        Raises:
            SampleError: The sample has no usable audio.
        """
        side, frames = self.native.patch, shape[0] * self.native.patch
        wanted = int(self._samples(np.array(frames)))
        reader = replace(self.reader, clip=replace(self.clip, seconds=wanted / self.clip.sample_rate))
        n, rate = reader.length(item.index)
        first, stop = reader.clip.segment(n, rate, item.rng("clip"))
        spectrogram = replace(self.spectrogram, frames=frames)
        length = wanted if self.clip.short == "repeat" else min((stop - first) * self.clip.sample_rate // rate, wanted)
        heard = max(int(spectrogram.n_frames(torch.tensor(length))), 1)
        return SoundTokensPlan(
            sound=reader.planned(item.index, first, stop),
            reader=reader,
            spectrogram=spectrogram,
            shape=shape,
            patch=side,
            held=-(-heard // side) * self.bands,
            transform=self.transform,
        )

    def _frames(self, n_samples: Int64s) -> Int64s:
        """Return the number of frames of waveforms."""
        features = self.spectrogram.features
        if isinstance(features, Fbank):
            return np.where(n_samples >= features.window, 1 + (n_samples - features.window) // features.shift, 0)
        return np.where(n_samples > 0, 1 + n_samples // features.shift, 0)

    def _samples(self, frames: Int64s) -> Int64s:
        """Return the number of samples that waveforms of some frames have."""
        features = self.spectrogram.features
        behind = features.window if isinstance(features, Fbank) else 1
        return np.asarray((frames - 1) * features.shift + behind)
