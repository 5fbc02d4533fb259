"""Base of models for video with audio: their sizes and interface, and the parts of a batch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.shards.limits import PositiveFloat, PositiveInt, Proportion
from maskstream.train.core.model import Grids, Model, ModelConfig

from .encoder_decoder import VisibleEncoder
from .grid import gather_tokens
from .media_tokens import SpectrogramTokens, VideoTokens
from .objectives import average_valid_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig(ModelConfig[AudioVisualBatch], ABC):
    """The sizes of a model of pairs.

    Attributes:
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Channels of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of the layer norms.
        temperature: Temperature of the matching loss.
        matching: Weight of the matching loss, in [0, 1]; reconstruction has the rest.
    """

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    decoder_width: PositiveInt
    decoder_depth: PositiveInt
    decoder_heads: PositiveInt
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    temperature: PositiveFloat = 0.05
    matching: Proportion = 0.5

    def validate(self) -> None:
        for part in ("", "decoder_"):
            self.need_heads(f"{part}width", f"{part}heads", of=4)


class PairModel(Model[AudioVisualBatch]):
    """A model of video (or single frames) and spectrograms, on the grids "video" and "audio"."""

    encoder: VisibleEncoder

    def __init__(self, config: PairConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.video, self.audio = VideoTokens(grids["video"]), SpectrogramTokens(grids["audio"])

    def select_reconstruction_rows(self, batch: AudioVisualBatch) -> AudioVisualBatch:
        """Return the rows of a batch that are used for reconstruction, with their masks: all of them."""
        return batch

    @abstractmethod
    def predict(self, batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Predict the targets of both masks from the visible tokens.

        Args:
            batch: The rows for reconstruction.

        Returns:
            Predictions of video and audio, (B, M, values of a token).
        """

    def match(self, video: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit embeddings float32 (B, D) of whole clips and of their audio; matching ones should be similar.

        Args:
            video: Clips of a batch.
            spectrogram: Their spectrograms.
        """
        clips, sounds = (
            average_valid_tokens(self._encoded(kind, tokens, index_every_token(tokens)))
            for kind, tokens in enumerate((self.video.split(video), self.audio.split(spectrogram)))
        )
        return clips, sounds

    def reconstructed(self, batch: AudioVisualBatch) -> AudioVisualBatch:
        """Return the `select_reconstruction_rows` with the target tokens of both modalities replaced by predictions."""
        shown = self.select_reconstruction_rows(batch)
        spectrogram, of_video, of_audio = need_masks(shown)
        video, audio = self.predict(shown)
        return replace(
            shown,
            video=self.video.paint(shown.video, of_video.target, video),
            spectrogram=self.audio.paint(spectrogram, of_audio.target, audio),
        )

    def split(self, batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Return the tokens of a batch's clips and spectrograms, (B, N, values) each."""
        return self.video.split(batch.video), self.audio.split(need_masks(batch)[0])

    @torch.no_grad()
    def targets(self, split: tuple[Tensor, Tensor], batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Return the normalised target tokens of both modalities.

        Args:
            split: All tokens of both.
            batch: Their batch, with masks.
        """
        _, of_video, of_audio = need_masks(batch)
        video, audio = (gather_tokens(one, mask.target) for one, mask in zip(split, (of_video, of_audio), strict=True))
        return self.video.targets(video), self.audio.targets(audio)

    def _encoded(self, kind: int, tokens: Tensor, visible: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the encoded visible tokens of one modality, (B, V, D); padding is not attended to."""
        inputs = (self.video, self.audio)[kind].inputs(gather_tokens(tokens, visible))
        return cast(Tensor, self.encoder(inputs, visible, kind, valid))


def need_masks(batch: AudioVisualBatch) -> tuple[Tensor, MaskBatch, MaskBatch]:
    """Return the spectrograms and both masks of a batch; raise ValueError if one is missing."""
    if batch.spectrogram is None or batch.video_mask is None or batch.audio_mask is None:
        raise ValueError("the batch has no masks or no spectrogram; pass both masks to audiovisual_loader")
    return batch.spectrogram, batch.video_mask, batch.audio_mask


def select_rows(
    batch: AudioVisualBatch, rows: slice, video_mask: MaskBatch | None, audio_mask: MaskBatch | None
) -> AudioVisualBatch:
    """Return rows of a batch, without optical flow.

    Args:
        batch: The batch.
        rows: Rows to select.
        video_mask: Masks of the selected clips.
        audio_mask: Masks of the selected spectrograms.
    """
    kept: dict[str, Any] = {f.name: _rows(getattr(batch, f.name), rows) for f in fields(batch)}
    return replace(batch, **{**kept, "video_mask": video_mask, "audio_mask": audio_mask, "flow": None})


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, dict):
        return {name: _rows(one, rows) for name, one in value.items()}
    return value[rows] if isinstance(value, Tensor | list) else None


def index_every_token(tokens: Tensor) -> Tensor:
    """Return the indices int64 (B, N) of all tokens (B, N, ...)."""
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
