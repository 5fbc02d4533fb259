"""Batches of sounds, and batches of noisy mixtures."""

from dataclasses import dataclass

from torch import Tensor

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioBatch(Batch):
    """A batch of sounds.

    waveform: float32 (B, C, n). length: int64 (B,), the number of valid samples per waveform; the padding behind them
    is 0. spectrogram: float32 (B, T, F), normalised, of the mean over the channels; None in a host batch if the
    spectrograms are made on the device. mask: MaskBatch over the (time, freq) token grid, or None; targets that lie
    wholly in the padding have weight 0. start_s: float64 (B,), the start of the clip in its source, in seconds.

    strips: int64 (B, 4), the frames [t0, t1) and bins [f0, f1) that SpecAugment masked; None without SpecAugment.
    mixed_label: int64 (B,), the label of the sound that mixup added. share: float32 (B,), the weight of the sample's
    own sound in the mixture, 1 for a row without mixup. Both are None if the loader has no mixup.
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
    """A batch of noisy mixtures and their clean sounds.

    mixture, clean: float32 (B, M, n), for M microphones. snr_db: float32 (B,), the signal-to-noise ratio in decibels.
    label and key belong to the clean sounds.
    """

    mixture: Tensor
    clean: Tensor
    snr_db: Tensor
