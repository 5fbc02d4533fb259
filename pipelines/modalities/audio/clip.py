"""Audio clips: which segment of a sound is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np

from maskstream.shards.config import Config, check_types


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioClip(Config):
    """A segment of `seconds` seconds, resampled to `sample_rate` Hz.

    start: "random" draws the start, "center" takes the middle of the sound, "begin" its beginning. channels: "mono"
    averages all channels; a number keeps the first ones, and a sound with fewer is unusable. short: how to fill up a
    sound that is shorter than the clip: "zeros" pads it at the end, as Audio-MAE does; "repeat" repeats it.
    """

    seconds: float = 10.24
    sample_rate: int = 16000
    start: Literal["random", "center", "begin"] = "random"
    channels: Literal["mono"] | int = "mono"
    short: Literal["zeros", "repeat"] = "zeros"

    def __post_init__(self) -> None:
        check_types(self)
        if self.seconds <= 0 or self.sample_rate < 1:
            raise ValueError(f"seconds and sample_rate must be above 0, got {self.seconds} and {self.sample_rate}")
        if self.start not in ("random", "center", "begin"):
            raise ValueError(f"AudioClip(start={self.start!r}): legal are 'random', 'center' and 'begin'")
        if self.channels != "mono" and not (isinstance(self.channels, int) and self.channels >= 1):
            raise ValueError(f"AudioClip(channels={self.channels!r}): legal are 'mono' and integers from 1")
        if self.short not in ("zeros", "repeat"):
            raise ValueError(f"AudioClip(short={self.short!r}): legal are 'zeros' and 'repeat'")

    @property
    def n_samples(self) -> int:
        """The number of samples per channel, at the clip's rate."""
        return round(self.seconds * self.sample_rate)

    @property
    def n_channels(self) -> int:
        """The number of channels of the clip."""
        return 1 if self.channels == "mono" else self.channels

    def segment(self, n_samples: int, sample_rate: int, rng: np.random.Generator) -> tuple[int, int]:
        """Draws the segment [first, stop) of a sound of `n_samples` samples, counted at its own `sample_rate`.

        `first` coincides with a sample at the clip's rate, so the resampled segment is a segment of the resampled
        sound.
        """
        step, wanted, last = self._grid(n_samples, sample_rate)
        start = int(rng.integers(last + 1)) if self.start == "random" else (last // 2 if self.start == "center" else 0)
        return start * step, min(start * step + wanted, n_samples)

    def segment_at(self, n_samples: int, sample_rate: int, begin_s: float) -> tuple[int, int]:
        """The segment [first, stop) whose start is closest to `begin_s` seconds while it lies inside the sound."""
        step, wanted, last = self._grid(n_samples, sample_rate)
        start = min(max(round(begin_s * sample_rate / step), 0), last)
        return start * step, min(start * step + wanted, n_samples)

    def _grid(self, n_samples: int, sample_rate: int) -> tuple[int, int, int]:
        """The step between possible starts and the length of a segment, in samples, and the last start, in steps."""
        step = sample_rate // gcd(sample_rate, self.sample_rate)
        wanted = -(-self.n_samples * sample_rate // self.sample_rate)
        return step, wanted, max(n_samples - wanted, 0) // step
