"""Which stretch of a sound a clip shows."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np

from ....shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioClip(Config):
    """`seconds` of sound at `sample_rate`, and what becomes of its channels.

    start: "random" draws where it begins, "center" takes the middle, "begin" the beginning. channels: "mono" is the
    mean of all, a number keeps so many (a sound with fewer cannot be used). A sound shorter than the clip is taken
    whole; short: "zeros" fills up behind it, as Audio-MAE does, "repeat" begins it again.
    """

    seconds: float = 10.24
    sample_rate: int = 16000
    start: Literal["random", "center", "begin"] = "random"
    channels: Literal["mono"] | int = "mono"
    short: Literal["zeros", "repeat"] = "zeros"

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.sample_rate < 1:
            raise ValueError(f"seconds and sample_rate are above 0, got {self.seconds} and {self.sample_rate}")
        if self.start not in ("random", "center", "begin"):
            raise ValueError(f"AudioClip(start={self.start!r}): legal are 'random', 'center' and 'begin'")
        if self.channels != "mono" and not (isinstance(self.channels, int) and self.channels >= 1):
            raise ValueError(f"AudioClip(channels={self.channels!r}): legal are 'mono' and numbers from 1")
        if self.short not in ("zeros", "repeat"):
            raise ValueError(f"AudioClip(short={self.short!r}): legal are 'zeros' and 'repeat'")

    @property
    def n_samples(self) -> int:
        """Samples of one channel at the clip's rate."""
        return round(self.seconds * self.sample_rate)

    @property
    def n_channels(self) -> int:
        """Channels that come out."""
        return 1 if self.channels == "mono" else self.channels

    def stretch(self, n_samples: int, sample_rate: int, rng: np.random.Generator) -> tuple[int, int]:
        """The samples [first, stop) of a sound of `n_samples` at `sample_rate`.

        The first is where a sample of the clip's rate lies too, so that a resampled stretch is a stretch of the
        resampled sound.
        """
        step, wanted, last = self._grid(n_samples, sample_rate)
        start = int(rng.integers(last + 1)) if self.start == "random" else (last // 2 if self.start == "center" else 0)
        return start * step, min(start * step + wanted, n_samples)

    def stretch_at(self, n_samples: int, sample_rate: int, begin_s: float) -> tuple[int, int]:
        """The samples [first, stop) of such a stretch that begins as near to `begin_s` as one inside the sound can."""
        step, wanted, last = self._grid(n_samples, sample_rate)
        start = min(max(round(begin_s * sample_rate / step), 0), last)
        return start * step, min(start * step + wanted, n_samples)

    def _grid(self, n_samples: int, sample_rate: int) -> tuple[int, int, int]:
        """Samples from one possible first sample to the next, samples of a stretch, and the number of the last one."""
        step = sample_rate // gcd(sample_rate, self.sample_rate)
        wanted = -(-self.n_samples * sample_rate // self.sample_rate)
        return step, wanted, max(n_samples - wanted, 0) // step
