"""Batches of video clips with audio."""

from dataclasses import dataclass

from torch import Tensor

from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualBatch(Batch):
    """A batch of video clips, uint8 (B, T, H, W, 3), with the audio around them, float32 (B, 1, n).

    Times are in seconds from the first frame of the video. The four fields of diffusion noise are None if the loader
    draws none.

    Attributes:
        video: uint8 (B, T, H, W, 3): RGB frames.
        waveform: float32 (B, 1, n): audio samples, padded with 0.
        length: int64 (B,): number of valid samples in each waveform.
        spectrogram: float32 (B, T', F): normalised; None in a host batch if a device transform computes it.
        video_mask: Masks on the (t, h, w) token grid, or None.
        audio_mask: Masks on the (time, freq) token grid, or None.
        flow: Optical flow, as in VideoBatch.
        pts_s: float64 (B, T): time of each frame.
        audio_start_s: float64 (B,): time of the first audio sample.
        strips: SpecAugment strips, as in AudioBatch.
        video_noise: float32 (B, M, values per token): standard normal noise for the M targets of `video_mask`.
        video_time: int64 (B,): time of the noise schedule (augment/diffusion.py).
        audio_noise: float32 (B, M, values per token): standard normal noise for the M targets of `audio_mask`.
        audio_time: int64 (B,): time of the noise schedule for `audio_mask`.
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

    def scene_cuts(self) -> int:
        """Number of scene cuts in the clips; 0 without flow."""
        return 0 if self.flow is None else int(self.flow.cuts.sum())

    @property
    def clips(self) -> VideoBatch:
        """Video part of the batch."""
        return VideoBatch(
            video=self.video, mask=self.video_mask, flow=self.flow, pts_s=self.pts_s, key=self.key, label=self.label
        )

    @property
    def sounds(self) -> AudioBatch:
        """Audio part of the batch."""
        return AudioBatch(
            waveform=self.waveform,
            length=self.length,
            spectrogram=self.spectrogram,
            mask=self.audio_mask,
            start_s=self.audio_start_s,
            strips=self.strips,
            key=self.key,
            label=self.label,
        )
