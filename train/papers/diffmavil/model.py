"""DiffMAViL (Nunez et al., 2023): reconstructs masked video and audio from noised patches instead of mask tokens.

Each modality has its own encoder; fusion blocks follow over the visible tokens of both. For each hidden patch, a
decoder reads the noised patch (one diffusion time per sample and modality) and predicts the clean one. The audio
decoder has self-attention over noised patches and visible tokens. In the video decoder each noised patch attends to the
visible tokens only (cross-attention), which costs M x V instead of (M + V)^2. A contrastive loss matches clips and
audio by the means of their encoded visible tokens. The mask ratio falls over the run, and with it the batch size
(`Linear`, `token_budget=`).

The authors published no code: the sizes, the weight of matching, and predicting the clean patch (as in DiffMAE, Wei et
al., 2023) are this project's choices. See AVSiam for the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.augment.diffusion import LinearNoise
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.shards.limits import PositiveInt, Proportion
from maskstream.train.core.model import Grids, Losses, squared
from maskstream.train.nn.encoder_decoder import VisibleEncoder
from maskstream.train.nn.grid import build_interleaved_sinusoid
from maskstream.train.nn.objectives import average_valid_tokens, matching
from maskstream.train.nn.pair_model import PairConfig, PairModel, need_masks
from maskstream.train.nn.transformer import BlockSizes, Stack, init_linear

NOISE = LinearNoise()
"""The noise schedule, the same in the loader and in the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVisualDiffusionConfig(PairConfig):
    """The sizes of the model, by default a small one; `fusion_depth` is the number of blocks over both modalities."""

    width: PositiveInt = 192
    depth: PositiveInt = 4
    heads: PositiveInt = 3
    fusion_depth: PositiveInt = 1
    decoder_width: PositiveInt = 96
    decoder_depth: PositiveInt = 2
    decoder_heads: PositiveInt = 3
    matching: Proportion = 0.1


class NoisyDecoder(nn.Module):
    """Denoises the patches of one modality; with `cross`, patches attend only to visible tokens, else to all tokens."""

    positions: Tensor
    times: Tensor

    def __init__(self, c: AudioVisualDiffusionConfig, n_targets: int, positions: Tensor, *, cross: bool) -> None:
        super().__init__()
        self.cross = cross
        self.embed = nn.Linear(n_targets, c.decoder_width)
        self.time = nn.Linear(c.decoder_width, c.decoder_width)
        self.stack = Stack(c.decoder_depth, c.decoder_width, c.decoder_heads, c.mlp_ratio, c.eps, cross=cross)
        self.head = nn.Linear(c.decoder_width, n_targets)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("times", build_interleaved_sinusoid(NOISE.times, c.decoder_width), persistent=False)

    def forward(self, noisy: Tensor, time: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """Predict clean patches.

        Args:
            noisy: Noised patches (B, M, values).
            time: Diffusion times int64 (B,).
            target: Positions of the patches int64 (B, M).
            seen: Encoded visible tokens (B, V, E).

        Returns:
            (B, M, values).
        """
        x = self.embed(noisy) + self.positions[target] + self.time(self.times[time])[:, None]
        if self.cross:
            return cast(Tensor, self.head(self.stack(x, seen=seen)))
        return cast(Tensor, self.head(self.stack(torch.cat((seen, x), dim=1), last=x.shape[1])))


class AudioVisualDiffusion(PairModel, config=AudioVisualDiffusionConfig):
    """The model. A batch needs both masks, and the noise and its time for both modalities."""

    whole_graph = True

    def __init__(self, config: AudioVisualDiffusionConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.encoder = VisibleEncoder(
            [self.video.n_inputs, self.audio.n_inputs],
            self._places(c.width),
            BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps),
            shared=False,
        )
        self.fusion = Stack(c.fusion_depth, c.width, c.heads, c.mlp_ratio, c.eps)
        self.bridge = nn.Linear(c.width, c.decoder_width)
        places = self._places(c.decoder_width)
        self.video_decoder = NoisyDecoder(c, self.video.n_targets, places[0], cross=True)
        self.audio_decoder = NoisyDecoder(c, self.audio.n_targets, places[1], cross=False)
        init_linear(self)

    def _places(self, width: int) -> tuple[Tensor, Tensor]:
        """Return the position embeddings of video (along a line) and audio (along time and frequency)."""
        return build_interleaved_sinusoid(self.video.n_tokens, width), self.audio.positions(width)

    def loss(self, batch: AudioVisualBatch) -> Losses:
        """Return the squared errors of the denoised patches of both modalities and the matching loss, which is 1 at
        chance.

        Matching has its weight in the config; the two errors share the rest equally.
        """
        _, of_video, of_audio = need_masks(batch)
        split = self.split(batch)
        encoded = self._encode_visible(split, batch)
        (video, clean_video, _), (audio, clean_audio, _) = self._denoise_tokens(batch, split, self._fused(*encoded))
        c, share = self.config, (1 - self.config.matching) / 2
        return Losses(
            parts={
                "video": squared(video, clean_video, of_video.weight, share),
                "audio": squared(audio, clean_audio, of_audio.weight, share),
                "matching": matching(
                    average_valid_tokens(encoded[0]), average_valid_tokens(encoded[1]), c.temperature, c.matching
                ),
            }
        )

    def predict(self, batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Predict the targets of both masks; see PairModel.

        Each hidden patch is replaced by pure noise at the last time step; repeated calls use the same noise.
        """
        _, video_mask, audio_mask = need_masks(batch)
        seen = self._fused(*self._encode_visible(self.split(batch), batch))
        last = torch.full((len(seen),), NOISE.times - 1, device=seen.device)
        parts = ((self.video_decoder, self.video, video_mask), (self.audio_decoder, self.audio, audio_mask))
        made = []
        for decoder, kind, mask in parts:
            pure = torch.randn(*mask.target.shape, kind.n_targets, generator=torch.Generator().manual_seed(0))
            made.append(decoder(pure.to(seen.device), last, mask.target, seen))
        return made[0], made[1]

    def denoise(self, batch: AudioVisualBatch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return (predicted, clean, noised) target patches of video, then of audio, at the batch's noise and times.

        Args:
            batch: Batch with noise and masks.

        Returns:
            Patches of (B, M, values of a token).

        Raises:
            ValueError: The batch has no noise or no masks.
        """
        split = self.split(batch)
        return self._denoise_tokens(batch, split, self._fused(*self._encode_visible(split, batch)))

    def _denoise_tokens(
        self, batch: AudioVisualBatch, split: tuple[Tensor, Tensor], seen: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Denoise data that are already split into tokens (`split`) and encoded (`seen`)."""
        _, of_video, of_audio = need_masks(batch)
        parts = (
            (self.video_decoder, of_video, batch.video_noise, batch.video_time),
            (self.audio_decoder, of_audio, batch.audio_noise, batch.audio_time),
        )
        made = []
        for (decoder, mask, noise, time), true in zip(parts, self.targets(split, batch), strict=True):
            if noise is None or time is None:
                raise ValueError("the batch has no noise; pass noise= to the loader")
            noisy = NOISE.noised(true, noise, time)
            made.append((decoder(noisy, time, mask.target, seen), true, noisy))
        return made

    def _encode_visible(self, split: tuple[Tensor, Tensor], batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Return the encoded visible tokens of both modalities, (B, V, D) each."""
        _, of_video, of_audio = need_masks(batch)
        return self._encoded(0, split[0], of_video.visible), self._encoded(1, split[1], of_audio.visible)

    def _fused(self, clips: Tensor, sounds: Tensor) -> Tensor:
        """Return the fused tokens of both modalities at the decoders' width, (B, V, E)."""
        return cast(Tensor, self.bridge(self.fusion(torch.cat((clips, sounds), dim=1))))
