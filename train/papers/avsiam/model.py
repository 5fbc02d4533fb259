"""AVSiam (Lin & Bertasius, 2024): one encoder for frames and audio, trained by matching and by reconstruction.

Both modalities share the attention and MLP weights of the encoder; each has separate patch embeddings, positions and
layer norms. Every step has two losses. Matching: clips and audio are masked at several ratios (different ones in
different parts of a batch, independently for the two) and encoded separately; a contrastive loss compares the means of
their tokens. Reconstruction: with other masks at one ratio, a decoder over the tokens of both modalities, each with a
modality embedding, predicts the hidden patches of both.

In reconstruction, audio may have a separate encoder on top of the shared embedding, and joint blocks may follow the
encoders, as in the authors' code. Differences from the authors' code: both losses are used in one step instead of two,
and targets are normalised.

Shapes: B samples, N tokens, V of them visible, M of them predicted, D the encoder's width, E the decoder's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch, visible_count
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.shards.limits import NaturalInt, PositiveInt
from maskstream.train.core.model import Grids, Losses, squared
from maskstream.train.nn.encoder_decoder import TokenDecoder, VisibleEncoder
from maskstream.train.nn.grid import build_grid_positions, gather_tokens
from maskstream.train.nn.media_tokens import SpectrogramTokens, VideoTokens
from maskstream.train.nn.objectives import average_valid_tokens, count_pairs, matching
from maskstream.train.nn.pair_model import PairConfig, PairModel, need_masks, select_rows
from maskstream.train.nn.transformer import BlockSizes, Stack, TransformerBlock, init_linear

VIDEO, AUDIO = 0, 1


RECONSTRUCTED = 0.75
"""The ratio of the masks for reconstruction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiameseConfig(PairConfig):
    """The sizes of the model, by default AVSiam's base model; see also `PairConfig`.

    Attributes:
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Channels of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        parts: Number of parts of similar ratios in which a batch is encoded for matching, one for each ratio.
        joint_depth: Number of blocks between encoder and decoder, over the tokens of both modalities.
        own_sounds: Whether audio has separate blocks in reconstruction.
        summed: Whether the loss is the sum of its parts, with the matching in nats, instead of their weighted mean.
    """

    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    decoder_width: PositiveInt = 512
    decoder_depth: PositiveInt = 8
    decoder_heads: PositiveInt = 16
    parts: int = 5
    joint_depth: NaturalInt = 0
    own_sounds: bool = False
    summed: bool = False


class Siamese(PairModel, config=SiameseConfig):
    """The model. A batch has two views of each sample: the first, with padded masks of several ratios, is used for
    matching, the second, with masks of one ratio, for reconstruction.
    """

    whole_graph = True

    def __init__(self, config: SiameseConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        kinds: tuple[VideoTokens, SpectrogramTokens] = (self.video, self.audio)
        self.encoder = VisibleEncoder(
            [kind.n_inputs for kind in kinds],
            [build_grid_positions(kind.grid, c.width) for kind in kinds],
            BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps),
        )
        self.decoder = TokenDecoder(
            c.width,
            [kind.n_targets for kind in kinds],
            [build_grid_positions(kind.grid, c.decoder_width) for kind in kinds],
            BlockSizes(c.decoder_depth, c.decoder_heads, c.mlp_ratio, c.eps),
        )
        self.decoder.init_weights()
        sizes = (c.width, c.heads, c.mlp_ratio, c.eps)
        self.joint = nn.ModuleList(TransformerBlock(*sizes) for _ in range(c.joint_depth))
        self.sounds = Stack(c.depth, *sizes) if c.own_sounds else None
        init_linear(self)

    encoder_parts: ClassVar[tuple[str, ...]] = ("video", "audio", "encoder")
    """Parts that compute the features."""

    @property
    def feature_width(self) -> int:
        """The width of `features`."""
        return 2 * self.config.width

    def features(self, batch: AudioVisualBatch) -> Tensor:
        """Return the mean tokens of whole clips and of their audio, each of length 1, concatenated: float32 (B, 2
        D).
        """
        if batch.spectrogram is None:
            raise ValueError("the batch has no spectrograms; pass features=Features() to the loader")
        return torch.cat(self.match(batch.video, batch.spectrogram), dim=1)

    def loss(self, batch: AudioVisualBatch) -> Losses:
        """Return the squared errors of the target tokens of both modalities and the matching loss.

        Matching has its weight in the config; the two errors share the rest equally. With `summed`, all three are
        added.
        """
        shown = self.select_reconstruction_rows(batch)
        _, of_video, of_audio = need_masks(shown)
        split = self.split(shown)
        predicted, expected = self._completed(split, shown), self.targets(split, shown)
        clips, sounds = self._match_views(batch)
        c, share, matched = self.config, (1 - self.config.matching) / 2, self.config.matching
        if c.summed:
            share, matched = 1.0, math.log(count_pairs(clips))
        return Losses(
            parts={
                "video": squared(predicted[VIDEO], expected[VIDEO], of_video.weight, share),
                "audio": squared(predicted[AUDIO], expected[AUDIO], of_audio.weight, share),
                "matching": matching(clips, sounds, c.temperature, matched),
            }
        )

    def select_reconstruction_rows(self, batch: AudioVisualBatch) -> AudioVisualBatch:
        """Return the second views. Their masks have one ratio, so the padding is removed."""
        _, video, audio = need_masks(batch)
        return select_rows(batch, slice(1, None, 2), self._make_second_mask(video), self._make_second_mask(audio))

    def _make_second_mask(self, mask: MaskBatch) -> MaskBatch:
        n = mask.masked.shape[1]
        seen = visible_count(n, RECONSTRUCTED, "floor_visible")
        return MaskBatch(
            grid=mask.grid,
            masked=mask.masked[1::2],
            visible=mask.visible[1::2, :seen],
            target=mask.target[1::2, : n - seen],
            weight=mask.weight[1::2, : n - seen],
        )

    def _match_views(self, batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Return unit embeddings (B, D) of the clips and the audio of the first views."""
        spectrogram, video, audio = need_masks(batch)
        clips = self._match_tokens(VIDEO, self.video.split(batch.video[0::2]), self._first(video))
        return clips, self._match_tokens(AUDIO, self.audio.split(spectrogram[0::2]), self._first(audio))

    def _first(self, mask: MaskBatch) -> list[Tensor]:
        if mask.n_visible is None:
            raise ValueError("AVSiam needs padded masks, whose counts may differ; use masks.Padded(...)")
        return divide_by_count(mask.visible[0::2], mask.n_visible[0::2], self.config.parts)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile encoders, joint blocks and decoder, since the division of a batch into parts is decided on the
        host.
        """
        for part in (self.encoder, self.sounds, *self.joint, self.decoder):
            if part is not None:
                part.compile(*args, **kwargs)

    def predict(self, batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Predict the targets of both masks; see PairModel."""
        return self._completed(self.split(batch), batch)

    def _match_tokens(self, modality: int, tokens: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Return the mean tokens (B, D) of a batch whose rows are encoded in parts (see `divide_by_count`)."""
        rows, visible, valid = parts[::3], parts[1::3], parts[2::3]
        means = [
            average_valid_tokens(self._encoded(modality, tokens[row], seen, real), real)
            for row, seen, real in zip(rows, visible, valid, strict=True)
        ]
        return torch.cat(means)[torch.argsort(torch.cat(list(rows)))]

    def _completed(self, split: tuple[Tensor, Tensor], batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Predict the targets of both modalities from the visible tokens of both."""
        _, of_video, of_audio = need_masks(batch)
        visible, target = (of_video.visible, of_audio.visible), (of_video.target, of_audio.target)
        encoded = [self._encoded(VIDEO, split[VIDEO], visible[VIDEO])]
        if self.sounds is None:
            encoded.append(self._encoded(AUDIO, split[AUDIO], visible[AUDIO]))
        else:
            inputs = self.audio.inputs(gather_tokens(split[AUDIO], visible[AUDIO]))
            encoded.append(self.sounds(self.encoder.embedded(inputs, visible[AUDIO], AUDIO)))
        if self.joint:
            both = torch.cat(encoded, dim=1)
            for block in self.joint:
                both = block(both)
            encoded = list(torch.split(both, [one.shape[1] for one in encoded], dim=1))
        video, audio = self.decoder(encoded, visible, target)
        return video, audio


def divide_by_count(visible: Tensor, n_visible: Tensor, parts: int) -> list[Tensor]:
    """Divide a batch of padded masks into near-equal parts of rows with similar counts.

    The sizes of the parts depend only on B, and V' is the largest count of a part: if B is a multiple of the number of
    ratios, there is no padding, and there are as many shapes as ratios. On a CUDA device the counts are copied to the
    host once.

    Args:
        visible: Visible tokens of a MaskBatch, int64 (B, V).
        n_visible: Number of them, int64 (B,).
        parts: Number of parts.

    Returns:
        For each part its rows int64 (b,), their visible tokens int64 (b, V'), and which of these are real, bool (b,
            V').
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
