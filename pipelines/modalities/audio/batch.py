"""Batches of audio and of noisy mixtures."""

from dataclasses import dataclass

from torch import Tensor

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioBatch(Batch):
    """A batch of audio clips: waveforms, float32 (B, C, n), and normalised spectrograms, float32 (B, T, F).

    Attributes:
        waveform: float32 (B, C, n): audio samples, padded with 0.
        length: int64 (B,): number of valid samples in each waveform.
        spectrogram: float32 (B, T, F): normalised, from the mean over channels; None in a host batch if a device
            transform computes it.
        mask: Masks on the (time, freq) token grid, or None. Targets completely inside the padding have weight 0.
        start_s: float64 (B,): start of the clip in its source, in seconds.
        strips: int64 (B, 4): frames [t0, t1) and bins [f0, f1) masked by SpecAugment; None without SpecAugment.
        mixed_label: int64 (B,): label of the sample that mixup added; None without mixup.
        share: float32 (B,): mixup weight of the original sample, 1 for rows without mixup; None without mixup.
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
    """A batch of noisy mixtures and clean audio, float32 (B, M, n) for M microphones; key and label belong to the clean
    audio.

    Attributes:
        mixture: float32 (B, M, n): clean audio plus noise.
        clean: float32 (B, M, n): clean audio.
        snr_db: float32 (B,): signal-to-noise ratio in decibels.
    """

    mixture: Tensor
    clean: Tensor
    snr_db: Tensor
