"""DiffMAViL (Nunez et al., 2023): masked video and sound, completed from patches in noise instead of from mask tokens.

Each modality has an encoder; fusion blocks follow over the visible tokens of both. The decoders get, for each hidden
patch, the patch itself in noise (diffusion, one time for each sample and modality) and predict it without. The sound's
decoder attends to everything, noisy patches and seen tokens; the video's only lets each noisy patch look at the seen
tokens (cross-attention), which costs M x V instead of (M + V)^2. Beside that, clips and sounds are matched by the means
of their encoded visible tokens. The ratio of the masks falls over the run and batches shrink with it (`Linear`,
`token_budget=`).

The authors published no code: sizes, the weight of matching, and predicting the clean patch (as DiffMAE does, Wei et
al., 2023) are choices made here. Shapes as in siamese.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipelines.augment.diffusion import LinearNoise
from ...pipelines.masks.core.batch import MaskBatch
from ...pipelines.modalities.audiovisual.batch import AudioVisualBatch
from ..tokens.spectrogram import SpectrogramTokens, SpectrogramTokensConfig
from ..tokens.video import VideoTokens, VideoTokensConfig
from .audiovisual_match import PairSizes, matching_loss, mean_token
from .masked_autoencoder import Block, sinusoid_positions

NOISE = LinearNoise()
"""The diffusion: what the loader draws and the model takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualDiffusionConfig(PairSizes):
    """The sizes of a small model; fusion_depth: blocks over both modalities together."""

    width: int = 192
    depth: int = 4
    heads: int = 3
    fusion_depth: int = 1
    decoder_width: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 3
    matching: float = 0.1

    def __post_init__(self) -> None:
        PairSizes.__post_init__(self)
        if self.fusion_depth < 1:
            raise ValueError(f"fusion_depth must be at least 1, got {self}")


class CrossBlock(nn.Module):
    """A pre-norm block in which tokens (B, M, E) look at others (B, V, E), not at each other, and a perceptron."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm_seen, self.norm2 = (nn.LayerNorm(width, eps=eps) for _ in range(3))
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q = self.query(self.norm1(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.norm_seen(seen)).unflatten(-1, (2, self.heads, -1)).movedim(2, 0).transpose(2, 3)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return cast(Tensor, x + self.down(F.gelu(self.up(self.norm2(x)))))


class NoisyDecoder(nn.Module):
    """Patches in noise to patches without, of one modality: `cross` blocks look at seen tokens only, else at all."""

    positions: Tensor
    times: Tensor

    def __init__(self, c: AudioVisualDiffusionConfig, n_targets: int, positions: Tensor, *, cross: bool) -> None:
        super().__init__()
        self.cross = cross
        self.embed = nn.Linear(n_targets, c.decoder_width)
        self.time = nn.Linear(c.decoder_width, c.decoder_width)
        kind = CrossBlock if cross else Block
        self.blocks = nn.ModuleList(
            kind(c.decoder_width, c.decoder_heads, c.mlp_ratio, c.eps) for _ in range(c.decoder_depth)
        )
        self.norm = nn.LayerNorm(c.decoder_width, eps=c.eps)
        self.head = nn.Linear(c.decoder_width, n_targets)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("times", sinusoid_positions(NOISE.times, c.decoder_width), persistent=False)

    def forward(self, noisy: Tensor, time: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """noisy (B, M, values) at times int64 (B,), the tokens `target` int64 (B, M), and seen (B, V, E)."""
        x = self.embed(noisy) + self.positions[target] + self.time(self.times[time])[:, None]
        if self.cross:
            for block in self.blocks:
                x = block(x, seen)
        else:
            x = torch.cat((x, seen), dim=1)
            for block in self.blocks:
                x = block(x)
            x = x[:, : noisy.shape[1]]
        return cast(Tensor, self.head(self.norm(x)))


class AudioVisualDiffusion(nn.Module):
    """The model over video and spectrograms. `seed` alone decides the initial weights."""

    video_positions: Tensor
    audio_positions: Tensor

    def __init__(
        self,
        config: AudioVisualDiffusionConfig,
        video: VideoTokensConfig,
        audio: SpectrogramTokensConfig,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.video, self.audio = VideoTokens(video), SpectrogramTokens(audio)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(config)
        self.register_buffer("video_positions", sinusoid_positions(self.video.n_tokens, config.width), persistent=False)
        self.register_buffer("audio_positions", self.audio.positions(config.width), persistent=False)

    def _build(self, c: AudioVisualDiffusionConfig) -> None:
        self.video_embed = nn.Linear(self.video.n_inputs, c.width)
        self.audio_embed = nn.Linear(self.audio.n_inputs, c.width)
        stacks = [
            nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio, c.eps) for _ in range(depth))
            for depth in (c.depth, c.depth, c.fusion_depth)
        ]
        self.video_encoder, self.audio_encoder, self.fusion = stacks
        self.video_norm, self.audio_norm, self.fusion_norm = (nn.LayerNorm(c.width, eps=c.eps) for _ in range(3))
        self.bridge = nn.Linear(c.width, c.decoder_width)
        places = (
            sinusoid_positions(self.video.n_tokens, c.decoder_width),
            self.audio.positions(c.decoder_width),
        )
        self.video_decoder = NoisyDecoder(c, self.video.n_targets, places[0], cross=True)
        self.audio_decoder = NoisyDecoder(c, self.audio.n_targets, places[1], cross=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The loss, a float32 scalar: the two parts of `losses` weighed by the config."""
        reconstruction, matching = self.losses(*inputs)
        return (1 - self.config.matching) * reconstruction + self.config.matching * matching

    def losses(
        self,
        video: Tensor,
        spectrogram: Tensor,
        video_visible: Tensor,
        video_target: Tensor,
        video_weight: Tensor,
        video_noise: Tensor,
        video_time: Tensor,
        audio_visible: Tensor,
        audio_target: Tensor,
        audio_weight: Tensor,
        audio_noise: Tensor,
        audio_time: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The reconstruction's loss (the mean of both modalities' mean squared errors of clean patches) and that of
        matching (1 for guesses). The arguments are the fields of an AudioVisualBatch.
        """
        split = (self.video.split(video), self.audio.split(spectrogram))
        clean = self._clean(split, video_target, audio_target)
        encoded = self._encoded(split, video_visible, audio_visible)
        seen = self._fused(*encoded)
        predicted = (
            self.video_decoder(NOISE.noised(clean[0], video_noise, video_time), video_time, video_target, seen),
            self.audio_decoder(NOISE.noised(clean[1], audio_noise, audio_time), audio_time, audio_target, seen),
        )
        errors = []
        for made, true, weight in zip(predicted, clean, (video_weight, audio_weight), strict=True):
            error = F.mse_loss(made.float(), true, reduction="none").mean(dim=2)
            errors.append((error * weight).sum() / weight.sum().clamp(min=1))
        matching = matching_loss(mean_token(encoded[0]), mean_token(encoded[1]), self.config.temperature)
        return (errors[0] + errors[1]) / 2, matching

    def predict(
        self, video: Tensor, spectrogram: Tensor, video_mask: MaskBatch, audio_mask: MaskBatch
    ) -> tuple[Tensor, Tensor]:
        """The targets of both masks, (B, M, values of a token), from nothing but the visible tokens: each hidden patch
        comes in as pure noise, the same at each call, at the last time.
        """
        split = (self.video.split(video), self.audio.split(spectrogram))
        seen = self._fused(*self._encoded(split, video_mask.visible, audio_mask.visible))
        last = torch.full((len(video),), NOISE.times - 1, device=video.device)
        parts = ((self.video_decoder, self.video, video_mask), (self.audio_decoder, self.audio, audio_mask))
        made = []
        for decoder, kind, mask in parts:
            pure = torch.randn(*mask.target.shape, kind.n_targets, generator=torch.Generator().manual_seed(0))
            made.append(decoder(pure.to(seen.device), last, mask.target, seen))
        return made[0], made[1]

    def denoise(self, batch: AudioVisualBatch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of the targets of the video, then of the sound, at the batch's noise and times: what is predicted, the clean
        patches, and those in noise, (B, M, values of a token) each. ValueError where the batch has no noise or masks.
        """
        parts = (
            (self.video_decoder, batch.video_mask, batch.video_noise, batch.video_time),
            (self.audio_decoder, batch.audio_mask, batch.audio_noise, batch.audio_time),
        )
        masks = [mask for _, mask, _, _ in parts if mask is not None]
        if batch.spectrogram is None or len(masks) < 2:
            raise ValueError("the batch has no masks or no spectrogram; give the loader both masks")
        split = (self.video.split(batch.video), self.audio.split(batch.spectrogram))
        seen = self._fused(*self._encoded(split, masks[0].visible, masks[1].visible))
        made = []
        for (decoder, mask, noise, time), clean in zip(
            parts, self._clean(split, masks[0].target, masks[1].target), strict=True
        ):
            if mask is None or noise is None or time is None:
                raise ValueError("the batch has no noise; give the loader noise=")
            noisy = NOISE.noised(clean, noise, time)
            made.append((decoder(noisy, time, mask.target, seen), clean, noisy))
        return made

    def match(self, video: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors float32 (B, D) of whole clips and of whole sounds; those of a pair should be near each other."""
        split = (self.video.split(video), self.audio.split(spectrogram))
        every = [torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2]) for tokens in split]
        clips, sounds = self._encoded(split, every[0], every[1])
        return mean_token(clips), mean_token(sounds)

    def metadata(self) -> dict[str, str]:
        """The kind of model and its configs, as `load_model` reads them."""
        return {
            "kind": "audiovisual-diffusion",
            "model": json.dumps(asdict(self.config)),
            "video": json.dumps(asdict(self.video.config)),
            "audio": json.dumps(asdict(self.audio.config)),
        }

    def _clean(self, split: tuple[Tensor, Tensor], video_target: Tensor, audio_target: Tensor) -> tuple[Tensor, Tensor]:
        """The target tokens of both as the decoders predict them."""
        with torch.no_grad():
            return (
                self.video.targets(split[0][_rows(split[0]), video_target]),
                self.audio.targets(split[1][_rows(split[1]), audio_target]),
            )

    def _encoded(
        self, split: tuple[Tensor, Tensor], video_visible: Tensor, audio_visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The visible tokens of both through their encoders, (B, V, D) each."""
        x = self.video_embed(self.video.inputs(split[0][_rows(split[0]), video_visible]))
        x = x + self.video_positions[video_visible]
        for block in self.video_encoder:
            x = block(x)
        y = self.audio_embed(self.audio.inputs(split[1][_rows(split[1]), audio_visible]))
        y = y + self.audio_positions[audio_visible]
        for block in self.audio_encoder:
            y = block(y)
        return self.video_norm(x), self.audio_norm(y)

    def _fused(self, clips: Tensor, sounds: Tensor) -> Tensor:
        """What the decoders see, (B, V, E): the tokens of both."""
        x = torch.cat((clips, sounds), dim=1)
        for block in self.fusion:
            x = block(x)
        return cast(Tensor, self.bridge(self.fusion_norm(x)))


def _rows(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[0], device=tokens.device)[:, None]
