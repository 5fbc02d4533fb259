"""A line of microphones that a plane wave reaches, one after the other: how one recording becomes several channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.config import Config

SPEED_OF_SOUND = 343.0
"""Metres per second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicrophoneLine(Config):
    """`count` microphones, `spacing_m` metres apart; a source is far away and plays without an echo.

    The angle to the line is drawn uniformly in [0, pi]; microphone m hears it m * spacing * cos(angle) / 343 seconds
    later, in fractions of a sample, and all hear it equally loud.
    """

    count: int = 4
    spacing_m: float = 0.05

    def __post_init__(self) -> None:
        if self.count < 1 or self.spacing_m < 0:
            raise ValueError(f"count is at least 1 and spacing_m at least 0, got {self.count} and {self.spacing_m}")

    def hear(
        self, sound: npt.NDArray[np.float32], sample_rate: int, rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """A sound float32 (n,) from a drawn direction, as float32 (n, count); it fades in and out of the delays."""
        angle = rng.uniform(0, np.pi)
        step = self.spacing_m * np.cos(angle) / SPEED_OF_SOUND * sample_rate
        delays = step * (np.arange(self.count) - (self.count - 1) / 2)
        room = int(np.ceil(np.abs(delays).max())) + 1
        spectrum = np.fft.rfft(np.pad(sound, room))
        cycles = np.arange(len(spectrum)) / (len(sound) + 2 * room)
        turned = spectrum[:, None] * np.exp(-2j * np.pi * cycles[:, None] * delays)
        heard = np.fft.irfft(turned, n=len(sound) + 2 * room, axis=0)[room : room + len(sound)]
        return heard.astype(np.float32)
