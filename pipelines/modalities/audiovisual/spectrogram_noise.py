"""AVSiam's augmentation of spectrograms: additive noise, and a circular shift in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramNoise(Config):
    """Adds noise that is uniform in [0, level), and shifts the spectrogram in time.

    most: the level is drawn uniformly from [0, most), in standard deviations of the dataset. roll: the shift is drawn
    uniformly from [-roll, roll] frames, and is circular over the valid frames. Source: AVSiam (Lin and Bertasius,
    2024); its code pre-trains with most 0.1 and roll 1024, which is all frames.

    **A shift desynchronises sound and video**: batch.audio_start_s is the start before the shift. Use it only for
    models that need no synchrony, such as AVSiam, which matches a clip with sound of about its time.
    """

    most: float = 0.1
    roll: int = 0

    def __post_init__(self) -> None:
        if self.most < 0 or self.roll < 0:
            raise ValueError(f"most and roll must be at least 0, got {self.most} and {self.roll}")

    def add(self, spectrogram: npt.NDArray[np.float32], heard: int, deviation: float, rng: np.random.Generator) -> None:
        """Changes the first `heard` (valid) frames of a spectrogram, float32 (frames, bins), in place.

        deviation: the standard deviation of the dataset, in units of the spectrogram.
        """
        level, shift = rng.random() * self.most * deviation, int(rng.integers(-self.roll, self.roll + 1))
        sound = spectrogram[:heard]
        sound += np.float32(level) * rng.random(sound.shape, dtype=np.float32)
        if shift and heard:
            sound[:] = np.roll(sound, shift, axis=0)
