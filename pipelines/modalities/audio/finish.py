"""Spectrograms of whole batches, made where those are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .batch import AudioBatch
from .sample import mono
from .spectrogram import Spectrogram


@dataclass(frozen=True, slots=True)
class Spectrograms:
    """Makes the spectrograms of a batch by torch."""

    of: Spectrogram

    def __call__(self, batch: AudioBatch, device: torch.device) -> AudioBatch:
        """The batch with its spectrograms."""
        return replace(batch, spectrogram=self.of(mono(batch.waveform), batch.length, batch.strips))
