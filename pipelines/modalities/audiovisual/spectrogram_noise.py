"""What AVSiam adds to spectrograms when it trains: noise, and a circular shift in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramNoise(Config):
    """Noise in every value, uniform in [0, level) with a level that is uniform in [0, `most`); and a shift in time.

    most: in standard deviations of the dataset. roll: the shift is uniform in [-roll, roll] frames and circular over
    those that are sound. Source: AVSiam (Lin and Bertasius, 2024), whose code pre-trains with 0.1 and 1024, all frames.

    **A shift takes the sound off the clip's clock**: what is heard is no longer what is seen at that time, and a
    batch's audio_start_s says when the sound began before it was shifted. Only 0, the default, keeps them together; a
    model that matches a clip with sound of about its time, as AVSiam does, may still be trained so.
    """

    most: float = 0.1
    roll: int = 0

    def __post_init__(self) -> None:
        if self.most < 0 or self.roll < 0:
            raise ValueError(f"most and roll are at least 0, got {self.most} and {self.roll}")

    def add(self, spectrogram: npt.NDArray[np.float32], heard: int, deviation: float, rng: np.random.Generator) -> None:
        """Changes a spectrogram float32 (frames, bins) in place; its first `heard` frames are sound, the others stay.

        deviation: the dataset's, in units of the spectrogram.
        """
        level, shift = rng.random() * self.most * deviation, int(rng.integers(-self.roll, self.roll + 1))
        sound = spectrogram[:heard]
        sound += np.float32(level) * rng.random(sound.shape, dtype=np.float32)
        if shift and heard:
            sound[:] = np.roll(sound, shift, axis=0)
