"""The finish that makes the spectrograms of a whole batch of clips with sound, on its device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..audio.spectrogram import Spectrogram
from .batch import AudioVisualBatch


@dataclass(frozen=True, slots=True)
class HeardSpectrograms:
    """Makes the spectrograms of a batch with torch."""

    of: Spectrogram

    def __call__(self, batch: AudioVisualBatch, device: torch.device) -> AudioVisualBatch:
        """The batch with its spectrograms."""
        return replace(batch, spectrogram=self.of(batch.waveform.mean(dim=1), batch.length, batch.strips))
