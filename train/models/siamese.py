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

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from ...pipelines.masks import visible_count
from ...pipelines.masks.core.batch import MaskBatch
from ...pipelines.modalities.audiovisual.batch import AudioVisualBatch
from ..core.block import begin_linear, gathered
from ..core.losses import Losses, squared
from ..core.model import Grids
from ..core.positions import grid_positions
from ..tokens.spectrogram import SpectrogramTokens
from ..tokens.video import VideoTokens
from .audiovisual_match import matching, mean_token
from .encoder_decoder import TokenDecoder, TokenEncoder
from .pair_model import PairConfig, PairModel, every_token, masked, rows_of

VIDEO, AUDIO = 0, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SiameseConfig(PairConfig):
    """The sizes of AVSiam's base model. reconstructed: the share of tokens that the masks for reconstruction hide.
    parts: in so many parts of similar ratios a batch is encoded for matching, one for each ratio.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    reconstructed: float = 0.75
    parts: int = 5

    def make(self, grids: Grids) -> Siamese:
        """See ModelConfig."""
        return Siamese(self, grids)


class Siamese(PairModel):
    """The model. Of each sample a batch has two views: the first is matched at several ratios (padded masks), the
    second is reconstructed at one.
    """

    def __init__(self, config: SiameseConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
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

    def loss(self, batch: AudioVisualBatch) -> Losses:
        """The squared errors of both modalities' target tokens, which share what matching leaves, and matching."""
        shown = self.shown(batch)
        spectrogram, of_video, of_audio = masked(shown)
        split = (self.video.split(shown.video), self.audio.split(spectrogram))
        predicted = self._completed(split, (of_video.visible, of_audio.visible), (of_video.target, of_audio.target))
        with torch.no_grad():
            expected = (
                self.video.targets(gathered(split[VIDEO], of_video.target)),
                self.audio.targets(gathered(split[AUDIO], of_audio.target)),
            )
        clips, sounds = self._matched_views(batch)
        c, share = self.config, (1 - self.config.matching) / 2
        return Losses(
            parts={
                "video": squared(predicted[VIDEO], expected[VIDEO], of_video.weight, share),
                "audio": squared(predicted[AUDIO], expected[AUDIO], of_audio.weight, share),
                "matching": matching(clips, sounds, c.temperature, c.matching),
            }
        )

    def shown(self, batch: AudioVisualBatch) -> AudioVisualBatch:
        """The second views, with masks without the padding: all of them have one ratio."""
        _, video, audio = masked(batch)
        return rows_of(batch, slice(1, None, 2), self._second(video), self._second(audio))

    def _second(self, mask: MaskBatch) -> MaskBatch:
        n = mask.masked.shape[1]
        seen = visible_count(n, self.config.reconstructed, "floor_visible")
        return MaskBatch(
            grid=mask.grid,
            masked=mask.masked[1::2],
            visible=mask.visible[1::2, :seen],
            target=mask.target[1::2, : n - seen],
            weight=mask.weight[1::2, : n - seen],
        )

    def _matched_views(self, batch: AudioVisualBatch) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, D) of the first views' clips and of their sounds."""
        spectrogram, video, audio = masked(batch)
        clips = self._matched(VIDEO, self.video.split(batch.video[0::2]), self._first(video))
        return clips, self._matched(AUDIO, self.audio.split(spectrogram[0::2]), self._first(audio))

    def _first(self, mask: MaskBatch) -> list[Tensor]:
        if mask.n_visible is None:
            raise ValueError("masks of several ratios have different counts: give the loader masks.Padded(...)")
        return ratio_parts(mask.visible[0::2], mask.n_visible[0::2], self.config.parts)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles encoder and decoder: how a batch falls into parts of similar ratios is decided on the host."""
        self.encoder.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)

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
        clips = self._encoded(VIDEO, video_tokens, every_token(video_tokens))
        return mean_token(clips), mean_token(self._encoded(AUDIO, audio_tokens, every_token(audio_tokens)))

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
