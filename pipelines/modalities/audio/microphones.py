"""A linear array of microphones: simulates the channels of a plane wave from one recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Config

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
