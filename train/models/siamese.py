"""AVSiam (Lin & Bertasius, 2024): one encoder for pictures and sounds, which learns by matching and by reconstruction.

The blocks of the encoder are shared: attention and perceptron have the same weights for both modalities, while patch
embeddings, positions and layer norms are each one's own. Two things are asked of it at every step. Matching: clips and
sounds are masked at several ratios (parts of a batch have different ones, independently for both), each is encoded by
itself, and the means of the encoded tokens find each other. Reconstruction: of other masks, at one ratio, a decoder
over the tokens of both, told apart by an embedding, completes the hidden patches of both.

Other than in the authors' code both losses make one step, not two, and targets are normalised patches.

Shapes: B samples, N tokens, V of them visible, M of them predicted, D the encoder's width, E the decoder's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from ...pipelines.masks.core.batch import MaskBatch
from ..core.block import begin_linear, gathered
from ..core.losses import Losses, squared
from ..core.positions import grid_positions
from ..core.seeding import seeded
from ..tokens.spectrogram import SpectrogramTokens, SpectrogramTokensConfig
from ..tokens.video import VideoTokens, VideoTokensConfig
from .audiovisual_match import PairSizes, matching, mean_token
from .encoder_decoder import TokenDecoder, TokenEncoder

VIDEO, AUDIO = 0, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SiameseConfig(PairSizes):
    """The sizes of AVSiam's base model."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16


class Siamese(nn.Module):
    """The model over video (or single pictures) and spectrograms. `seed` alone decides the initial weights."""

    def __init__(
        self, config: SiameseConfig, video: VideoTokensConfig, audio: SpectrogramTokensConfig, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.video, self.audio = VideoTokens(video), SpectrogramTokens(audio)
        with seeded(seed):
            self._build(config)

    def _build(self, c: SiameseConfig) -> None:
        kinds: tuple[VideoTokens, SpectrogramTokens] = (self.video, self.audio)
        self.encoder = TokenEncoder(
            [kind.n_inputs for kind in kinds],
            [grid_positions(kind.grid, c.width) for kind in kinds],
            depth=c.depth,
            heads=c.heads,
            mlp_ratio=c.mlp_ratio,
            eps=c.eps,
        )
        self.decoder = TokenDecoder(
            c.width,
            [kind.n_targets for kind in kinds],
            [grid_positions(kind.grid, c.decoder_width) for kind in kinds],
            depth=c.decoder_depth,
            heads=c.decoder_heads,
            mlp_ratio=c.mlp_ratio,
            eps=c.eps,
        )
        self.decoder.begin()
        begin_linear(self)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The loss, a float32 scalar, 1 for a model that guesses, of the arguments of `losses`."""
        return self.losses(*inputs).loss()

    def losses(
        self,
        video: Tensor,
        spectrogram: Tensor,
        video_visible: Tensor,
        video_target: Tensor,
        video_weight: Tensor,
        audio_visible: Tensor,
        audio_target: Tensor,
        audio_weight: Tensor,
        matched_video: Tensor,
        matched_spectrogram: Tensor,
        *parts: Tensor,
    ) -> Losses:
        """The squared errors of both modalities' target tokens, which share what matching leaves, and matching.

        video uint8 (B, T, H, W, 3) and spectrogram float32 (B, T', F) are reconstructed by their masks, as in
        `MaskedAutoencoder`. matched_video and matched_spectrogram are matched; parts: see `ratio_parts`, of the video,
        then as many of the sound.
        """
        split = (self.video.split(video), self.audio.split(spectrogram))
        predicted = self._completed(split, (video_visible, audio_visible), (video_target, audio_target))
        half = len(parts) // 2
        clips = self._matched(VIDEO, self.video.split(matched_video), parts[:half])
        sounds = self._matched(AUDIO, self.audio.split(matched_spectrogram), parts[half:])
        c, share = self.config, (1 - self.config.matching) / 2
        with torch.no_grad():
            expected = (
                self.video.targets(gathered(split[VIDEO], video_target)),
                self.audio.targets(gathered(split[AUDIO], audio_target)),
            )
        return Losses(
            parts={
                "video": squared(predicted[VIDEO], expected[VIDEO], video_weight, share),
                "audio": squared(predicted[AUDIO], expected[AUDIO], audio_weight, share),
                "matching": matching(clips, sounds, c.temperature, c.matching),
            }
        )

    def predict(
        self, video: Tensor, spectrogram: Tensor, video_mask: MaskBatch, audio_mask: MaskBatch
    ) -> tuple[Tensor, Tensor]:
        """What the decoder says of the targets of both masks: (B, M, values of a token) of the video, of the sound."""
        split = (self.video.split(video), self.audio.split(spectrogram))
        video_made, audio_made = self._completed(
            split, (video_mask.visible, audio_mask.visible), (video_mask.target, audio_mask.target)
        )
        return video_made, audio_made

    def match(self, video: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors float32 (B, D) of whole clips and of whole sounds; those of a pair should be near each other."""
        video_tokens, audio_tokens = self.video.split(video), self.audio.split(spectrogram)
        clips = self._encoded(VIDEO, video_tokens, _all(video_tokens))
        return mean_token(clips), mean_token(self._encoded(AUDIO, audio_tokens, _all(audio_tokens)))

    def metadata(self) -> dict[str, str]:
        """The kind of model and its configs, as `load_model` reads them."""
        return {
            "kind": "siamese",
            "model": json.dumps(asdict(self.config)),
            "video": json.dumps(asdict(self.video.config)),
            "audio": json.dumps(asdict(self.audio.config)),
        }

    def _encoded(self, modality: int, tokens: Tensor, visible: Tensor, valid: Tensor | None = None) -> Tensor:
        """The visible tokens of one modality through the encoder, (B, V, D); padding is not attended to."""
        kind = (self.video, self.audio)[modality]
        return cast(Tensor, self.encoder(kind.inputs(gathered(tokens, visible)), visible, modality, valid))

    def _matched(self, modality: int, tokens: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """The mean tokens (B, D) of a batch whose rows are encoded in parts."""
        rows, visible, valid = parts[::3], parts[1::3], parts[2::3]
        means = [
            mean_token(self._encoded(modality, tokens[row], seen, real), real)
            for row, seen, real in zip(rows, visible, valid, strict=True)
        ]
        return torch.cat(means)[torch.argsort(torch.cat(list(rows)))]

    def _completed(
        self, split: tuple[Tensor, Tensor], visible: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """What the decoder predicts of the targets of both modalities, having seen the visible tokens of both."""
        encoded = [self._encoded(modality, split[modality], visible[modality]) for modality in (VIDEO, AUDIO)]
        return cast(list[Tensor], self.decoder(encoded, visible, target))


def ratio_parts(visible: Tensor, n_visible: Tensor, parts: int) -> list[Tensor]:
    """A batch of padded masks as `parts` near-equal parts of rows with similar counts: for each part its rows int64
    (b,), their visible tokens int64 (b, V'), and which of those are real, bool (b, V').

    visible int64 (B, V) and n_visible int64 (B,) are those of a MaskBatch. Parts have sizes that depend on B alone, and
    V' is the greatest count in a part: with the ratios of AVSiam and a batch that they divide there is no padding, and
    there are as many shapes as ratios. (On a CUDA device the counts are copied to the host once.)
    """
    order = torch.argsort(n_visible, descending=True, stable=True)
    counts = n_visible[order].tolist()
    bounds = [len(counts) * part // parts for part in range(parts + 1)]
    made: list[Tensor] = []
    for first, stop in pairwise(bounds):
        if first < stop:
            rows, width = order[first:stop], max(counts[first], 1)
            real = torch.arange(width, device=visible.device) < n_visible[rows, None].clamp(min=1)
            made += [rows, visible[rows, :width], real]
    return made


def _all(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
