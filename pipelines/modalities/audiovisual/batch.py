"""A batch of clips with sound."""

from dataclasses import dataclass

from torch import Tensor

from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualBatch(Batch):
    """A batch of clips, each with the sound around it.

    video: uint8 (B, T, H, W, 3), RGB. waveform: float32 (B, 1, n). length: int64 (B,), the number of valid samples per
    waveform; the padding behind them is 0. spectrogram: float32 (B, T', F), normalised; None in a host batch if the
    spectrograms are made on the device. video_mask: MaskBatch over the (t, h, w) token grid, or None. audio_mask:
    MaskBatch over the (time, freq) token grid, or None. flow: as in VideoBatch. strips: as in AudioBatch.

    pts_s: float64 (B, T), the time of each frame. audio_start_s: float64 (B,), the time of the first sample of sound.
    Both are in seconds from the first frame of the video.

    video_noise: float32 (B, M, values per token), standard normal, for the M targets of video_mask. video_time: int64
    (B,), the time of the noise schedule (augment/diffusion.py). audio_noise and audio_time: the same for audio_mask.
    All four are None if the loader draws no noise.
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
        """The number of scene cuts in its clips; 0 without flow."""
        return 0 if self.flow is None else int(self.flow.cuts.sum())

    @property
    def clips(self) -> VideoBatch:
        """The clips alone."""
        return VideoBatch(
            video=self.video, mask=self.video_mask, flow=self.flow, pts_s=self.pts_s, key=self.key, label=self.label
        )

    @property
    def sounds(self) -> AudioBatch:
        """The sounds alone."""
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
