"""A batch of clips with their sound."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...flow.base import Flow
from ...masks.core.batch import MaskBatch
from ...stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualBatch(Batch):
    """A batch of clips, each with the sound of its time.

    video: uint8 (B, T, H, W, 3), RGB. waveform: float32 (B, 1, n), of which the first `length` int64 (B,) samples are
    sound and the others 0. spectrogram: float32 (B, T', F), normalised; None before a loader with on_device has made
    it. video_mask over the (t, h, w) token grid and audio_mask over the (time, freq) one: MaskBatch or None. flow:
    as in VideoBatch. strips: as in AudioBatch.

    pts_s: float64 (B, T), each frame's time, and audio_start_s: float64 (B,), that of the first sample of sound, both
    in seconds from the video's first frame.

    video_noise: float32 (B, M, values of a token), standard normal, for each target of video_mask, and video_time:
    int64 (B,), the time that it belongs to (see diffusion.py); audio_noise and audio_time alike. None where the loader
    adds none.
    """

    video: Tensor
    waveform: Tensor
    length: Tensor
    spectrogram: Tensor | None
    video_mask: MaskBatch | None
    audio_mask: MaskBatch | None
    flow: Flow | None
    pts_s: Tensor
    audio_start_s: Tensor
    strips: Tensor | None = None
    video_noise: Tensor | None = None
    video_time: Tensor | None = None
    audio_noise: Tensor | None = None
    audio_time: Tensor | None = None
