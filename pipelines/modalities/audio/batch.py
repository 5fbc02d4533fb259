"""Batches of sounds, clean ones and noisy ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...masks.core.batch import MaskBatch
from ...stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioBatch(Batch):
    """A batch of sounds.

    waveform: float32 (B, C, n), of which the first `length` int64 (B,) samples are sound and the others 0.
    spectrogram: float32 (B, T, F), normalised, of the mean of the channels; None before a loader with on_device has
    made it. mask: MaskBatch over the (time, freq) token grid, or None; tokens behind the end of a sound have weight 0.
    start_s: float64 (B,), where in its source a clip begins. strips: int64
    (B, 4), frames and bins that SpecAugment took away, or None. mixed_label int64 (B,) and share float32 (B,): of
    mixup, the label of the other sound and the share of the own one (1 where nothing was mixed in), or None.
    """

    waveform: Tensor
    length: Tensor
    spectrogram: Tensor | None
    mask: MaskBatch | None
    start_s: Tensor
    strips: Tensor | None = None
    mixed_label: Tensor | None = None
    share: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisyBatch(Batch):
    """A batch of noisy sounds and what they were before.

    mixture, clean: float32 (B, M, n), of M microphones. snr_db: float32 (B,), the power of `clean` over that of the
    noise in decibels. label and key are those of the clean sounds.
    """

    mixture: Tensor
    clean: Tensor
    snr_db: Tensor
