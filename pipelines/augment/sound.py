"""Audio augmentations from Audio-MAE and AST: roll and gain, SpecAugment, mixup."""

from dataclasses import dataclass

import numpy as np

from maskstream.shards.arrays import Float32s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.limits import NaturalInt, PositiveFloat, Proportion


@dataclass(frozen=True, kw_only=True, slots=True)
class RollGain(Config):
    """Shift circularly by a uniform offset, and apply a gain of 0.5 + Beta(alpha, alpha), in [0.5, 1.5].

    Source: Audio-MAE (Huang et al. 2022), which uses no other augmentation in pre-training, with alpha 10.

    Attributes:
        alpha: Parameter of the Beta distribution.
    """

    alpha: PositiveFloat = 10.0

    def __call__(self, waveform: Float32s, rng: np.random.Generator) -> Float32s:
        """Augment a waveform, float32 (n, channels); all channels get the same shift and gain."""
        offset, gain = int(rng.integers(max(len(waveform), 1))), 0.5 + rng.beta(self.alpha, self.alpha)
        return np.roll(waveform, offset, axis=0) * np.float32(gain)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecAugment(Config):
    """Set a strip of up to `time` frames and a strip of up to `freq` bins of a spectrogram to the dataset's mean.

    Widths and positions are uniform. Source: Park et al. 2019; AST fine-tunes AudioSet with time 192, freq 48.

    Attributes:
        time: Maximum number of frames.
        freq: Maximum number of frequency bins.
    """

    time: NaturalInt = 192
    freq: NaturalInt = 48

    def draw(self, frames: int, bins: int, rng: np.random.Generator) -> Int64s:
        """Draw the strips, int64 (4,): frames [t0, t1) and bins [f0, f1)."""
        edges = []
        for most, length in ((self.time, frames), (self.freq, bins)):
            width = int(rng.integers(min(most, length) + 1))
            start = int(rng.integers(length - width + 1))
            edges += [start, start + width]
        return np.array(edges, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup(Config):
    """Mix in another waveform of the dataset with probability `p`: share * own + (1 - share) * other.

    The share is drawn from Beta(alpha, alpha). The mean of each waveform is subtracted first. Source: AST's and
    Audio-MAE's fine-tuning, with Beta(10, 10).

    Attributes:
        p: Probability of mixing.
        alpha: Parameter of the Beta distribution.
    """

    p: Proportion = 0.5
    alpha: PositiveFloat = 10.0

    def draw(self, n_samples: int, rng: np.random.Generator) -> tuple[int, float] | None:
        """Draw the index of the other sample, in [0, n_samples), and this sample's share; None for no mixing."""
        other, share = int(rng.integers(n_samples)), float(rng.beta(self.alpha, self.alpha))
        return (other, share) if rng.random() < self.p else None
