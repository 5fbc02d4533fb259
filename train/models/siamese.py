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
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipelines.masks.core.batch import MaskBatch
from ..core.positions import grid_positions
from ..tokens.spectrogram import SpectrogramTokens, SpectrogramTokensConfig
from ..tokens.video import VideoTokens, VideoTokensConfig
from .audiovisual_match import PairSizes, matching_loss, mean_token
from .masked_autoencoder import Attention, Block

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


class SharedBlock(nn.Module):
    """A pre-norm block for tokens (B, V, D) of either modality: norms are the modality's own, the rest is shared."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in (VIDEO, AUDIO))
        self.attention = Attention(width, heads)
        self.norm2 = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in (VIDEO, AUDIO))
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, modality: int, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1[modality](x), mask)
        return cast(Tensor, x + self.down(F.gelu(self.up(self.norm2[modality](x)))))


class Siamese(nn.Module):
    """The model over video (or single pictures) and spectrograms. `seed` alone decides the initial weights."""

    positions_0: Tensor
    positions_1: Tensor
    decoder_positions_0: Tensor
    decoder_positions_1: Tensor

    def __init__(
        self, config: SiameseConfig, video: VideoTokensConfig, audio: SpectrogramTokensConfig, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.video, self.audio = VideoTokens(video), SpectrogramTokens(audio)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(config)
        for prefix, width in (("", config.width), ("decoder_", config.decoder_width)):
            known = (grid_positions(self.video.grid, width), grid_positions(self.audio.grid, width))
            for modality in (VIDEO, AUDIO):
                self.register_buffer(f"{prefix}positions_{modality}", known[modality], persistent=False)

    def _build(self, c: SiameseConfig) -> None:
        kinds: tuple[VideoTokens, SpectrogramTokens] = (self.video, self.audio)
        self.embed = nn.ModuleList(nn.Linear(kind.n_inputs, c.width) for kind in kinds)
        self.encoder = nn.ModuleList(SharedBlock(c.width, c.heads, c.mlp_ratio, c.eps) for _ in range(c.depth))
        self.encoder_norm = nn.ModuleList(nn.LayerNorm(c.width, eps=c.eps) for _ in kinds)
        self.bridge = nn.Linear(c.width, c.decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(c.decoder_width))
        self.kind = nn.Parameter(torch.zeros(2, c.decoder_width))
        self.decoder = nn.ModuleList(
            Block(c.decoder_width, c.decoder_heads, c.mlp_ratio, c.eps) for _ in range(c.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(c.decoder_width, eps=c.eps)
        self.head = nn.ModuleList(nn.Linear(c.decoder_width, kind.n_targets) for kind in kinds)
        for vectors in (self.mask_token, self.kind):
            nn.init.trunc_normal_(vectors, std=0.02, a=-0.02, b=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The loss, a float32 scalar, 1 for a model that guesses: the two parts of `losses` weighed by the config."""
        reconstruction, matching = self.losses(*inputs)
        return (1 - self.config.matching) * reconstruction + self.config.matching * matching

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
    ) -> tuple[Tensor, Tensor]:
        """The reconstruction's loss (the mean of both modalities' mean squared errors) and that of matching.

        video uint8 (B, T, H, W, 3) and spectrogram float32 (B, T', F) are reconstructed by their masks, as in
        `MaskedAutoencoder`. matched_video and matched_spectrogram are matched; parts: see `ratio_parts`, of the video,
        then as many of the sound.
        """
        masks = ((video_visible, video_target, video_weight), (audio_visible, audio_target, audio_weight))
        split = (self.video.split(video), self.audio.split(spectrogram))
        predicted = self._completed(split, masks)
        errors = [
            self._error(modality, split[modality], masks[modality], predicted[modality]) for modality in (VIDEO, AUDIO)
        ]
        half = len(parts) // 2
        clips = self._matched(VIDEO, self.video.split(matched_video), parts[:half])
        sounds = self._matched(AUDIO, self.audio.split(matched_spectrogram), parts[half:])
        return (errors[0] + errors[1]) / 2, matching_loss(clips, sounds, self.config.temperature)

    def predict(
        self, video: Tensor, spectrogram: Tensor, video_mask: MaskBatch, audio_mask: MaskBatch
    ) -> tuple[Tensor, Tensor]:
        """What the decoder says of the targets of both masks: (B, M, values of a token) of the video, of the sound."""
        split = (self.video.split(video), self.audio.split(spectrogram))
        masks = tuple((mask.visible, mask.target, mask.weight) for mask in (video_mask, audio_mask))
        return self._completed(split, masks)

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
        positions = (self.positions_0, self.positions_1)[modality]
        x = self.embed[modality](kind.inputs(tokens[_rows(tokens), visible])) + positions[visible]
        mask = None if valid is None else valid[:, None, None, :]
        for block in self.encoder:
            x = block(x, modality, mask)
        return cast(Tensor, self.encoder_norm[modality](x))

    def _matched(self, modality: int, tokens: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """The mean tokens (B, D) of a batch whose rows are encoded in parts."""
        rows, visible, valid = parts[::3], parts[1::3], parts[2::3]
        means = [
            mean_token(self._encoded(modality, tokens[row], seen, real), real)
            for row, seen, real in zip(rows, visible, valid, strict=True)
        ]
        return torch.cat(means)[torch.argsort(torch.cat(list(rows)))]

    def _completed(
        self, split: tuple[Tensor, Tensor], masks: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """What the decoder predicts of the targets of both modalities, having seen the visible tokens of both."""
        places = (self.decoder_positions_0, self.decoder_positions_1)
        seen, hidden = [], []
        for modality, (visible, target, _) in enumerate(masks):
            encoded = self.bridge(self._encoded(modality, split[modality], visible))
            own = places[modality] + self.kind[modality]
            seen.append(encoded + own[visible])
            hidden.append(self.mask_token + own[target])
        x = torch.cat((*hidden, *seen), dim=1)
        for block in self.decoder:
            x = block(x)
        n_video, n_audio = (part.shape[1] for part in hidden)
        x = self.decoder_norm(x[:, : n_video + n_audio])
        return self.head[VIDEO](x[:, :n_video]), self.head[AUDIO](x[:, n_video:])

    def _error(self, modality: int, tokens: Tensor, mask: tuple[Tensor, Tensor, Tensor], predicted: Tensor) -> Tensor:
        _, target, weight = mask
        with torch.no_grad():
            expected = (self.video, self.audio)[modality].targets(tokens[_rows(tokens), target])
        error = F.mse_loss(predicted.float(), expected, reduction="none").mean(dim=2)
        return (error * weight).sum() / weight.sum().clamp(min=1)


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


def _rows(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[0], device=tokens.device)[:, None]


def _all(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
