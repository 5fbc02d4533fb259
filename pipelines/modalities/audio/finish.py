"""The finish that makes the spectrograms of a whole batch on its device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .batch import AudioBatch
from .sample import mono
from .spectrogram import Spectrogram


@dataclass(frozen=True, slots=True)
class Spectrograms:
    """Makes the spectrograms of a batch with torch."""

    of: Spectrogram

    def __call__(self, batch: AudioBatch, device: torch.device) -> AudioBatch:
        """The batch with its spectrograms."""
        return replace(batch, spectrogram=self.of(mono(batch.waveform), batch.length, batch.strips))
