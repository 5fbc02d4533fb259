"""Model inputs of masked texts: [MASK], random or unchanged token ids, and separate masks for decoder rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from maskstream.pipelines.masks.core import (
    TEXT,
    Draw,
    Maps,
    Mask,
    MaskBatch,
    Ratio,
    Scheme,
    TextDraws,
    TokenGrid,
    as_schedule,
    sized,
)
from maskstream.pipelines.masks.patterns.padded import Padded
from maskstream.pipelines.stream.tensors import wrap_tensor
from maskstream.shards.arrays import Bools, Int64s
from maskstream.shards.limits import PositiveInt, Proportion

from .words import PADDING, TextWords, WholeWords

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TextMaskBatch(MaskBatch):
    """MaskBatch of texts, with optional token ids, int64 (B, N), and decoder attention, bool (B, N, N).

    Attributes:
        tokens: int64 (B, N): ids that the encoder reads, replaced where masked (`masks.Replace`); else None.
        attend: bool (B, N, N): tokens that each decoder position attends to (`masks.DecoderRows`); else None.
        version: int64 (B,): version of the feedback that each mask used (`masks.ByClass`); else None.
        ratio: float32 (B,): probability with which each token of a row was hidden (`masks.MaskedDiffusion`); else None.
    """

    tokens: Tensor | None = None
    attend: Tensor | None = None
    version: Tensor | None = None
    ratio: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextMaps(Maps):
    """Mask of one text: tokens int64 (N,), attend bool (N, N), version and ratio are a row of TextMaskBatch."""

    tokens: Int64s | None = None
    attend: Bools | None = None
    version: int | None = None
    ratio: np.float32 | None = None

    @classmethod
    def of(cls, maps: Maps) -> TextMaps:
        """Convert maps to TextMaps."""
        if isinstance(maps, TextMaps):
            return maps
        return cls(hidden=maps.hidden, target=maps.target, mask_token=maps.mask_token)

    @classmethod
    def batched(cls, maps: Sequence[Self], grid: TokenGrid, *, ragged: int | None = None) -> TextMaskBatch:
        """Combine the maps of a batch's samples into a TextMaskBatch; `ragged` as in `mask_batch`."""
        batch = super(TextMaps, cls).batched(maps, grid, ragged=ragged)
        return TextMaskBatch(
            grid=batch.grid,
            masked=batch.masked,
            visible=batch.visible,
            target=batch.target,
            weight=batch.weight,
            n_visible=batch.n_visible,
            n_target=batch.n_target,
            mask_token=batch.mask_token,
            tokens=_stack_values([m.tokens for m in maps], "tokens"),
            attend=_stack_values([m.attend for m in maps], "attend"),
            version=_stack_values([m.version for m in maps], "version"),
            ratio=_stack_values([m.ratio for m in maps], "ratio"),
        )


def _stack_values(values: Sequence[Int64s | Bools | np.float32 | int | None], name: str) -> Tensor | None:
    """Stack the values of a batch's samples into a tensor; None if no sample has one."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    if len(given) < len(values):
        raise ValueError(f"either all texts of a batch must have {name} or none, got {len(given)} of {len(values)}")
    return wrap_tensor(np.array(given))


OF_THE_SPLIT = -1
"""Placeholder for an id or vocabulary size that is read from the split's tokenizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replace(Mask):
    """Add the token ids that the encoder reads to another mask: `TextMaskBatch.tokens`, int64 (B, N).

    Each hidden token independently is unchanged with probability `keep`, becomes a uniformly random id below
    `vocabulary` with probability `random`, and `mask_id` otherwise. Labels are the original ids at `target`. The mask
    inputs are `tokens` and the inputs of `mask`. Source: BERT (Devlin et al. 2019, sec. 3.1): 80 % [MASK], 10 % random,
    10 % unchanged.

    Attributes:
        mask: Mask that chooses the hidden tokens.
        mask_id: Id of [MASK]; by default, from the tokenizer of the split that a loader opens.
        vocabulary: Number of ids; by default, from the tokenizer of the split that a loader opens.
        keep: Probability that a hidden token is unchanged.
        random: Probability that a hidden token becomes a random id.
    """

    mask: Mask
    mask_id: int = OF_THE_SPLIT
    vocabulary: int = OF_THE_SPLIT
    keep: Proportion = 0.1
    random: Proportion = 0.1

    def validate(self) -> None:
        if self.keep < 0 or self.random < 0 or self.keep + self.random > 1:
            raise ValueError(
                f"keep and random must be probabilities that sum to at most 1, got keep={self.keep}, "
                f"random={self.random}"
            )
        left_out = self.vocabulary == self.mask_id == OF_THE_SPLIT
        if (self.vocabulary < 1 or self.mask_id < 0) and not left_out:
            raise ValueError(
                f"vocabulary must be a number of ids and mask_id one of them, got vocabulary={self.vocabulary}, "
                f"mask_id={self.mask_id}"
            )

    @property
    def needs(self) -> frozenset[str]:
        return self.mask.needs | {"tokens"}

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.mask.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> TextMaps:
        if self.mask_id == OF_THE_SPLIT:
            raise ValueError(f"{self} has no ids; pass mask_id= and vocabulary=, or draw it in a text loader")
        maps = self.mask.maps(grid, draw)
        tokens = sized(draw.cues.need("tokens", by="Replace"), grid.size, "tokens", "Replace").astype(np.int64)
        places = np.flatnonzero(maps.hidden)
        chance = draw.rng.random(len(places))
        changed = places[chance >= self.keep]
        tokens[changed] = self.mask_id
        random = places[(chance >= self.keep) & (chance < self.keep + self.random)]
        tokens[random] = draw.rng.integers(self.vocabulary, size=len(random))
        return replace(TextMaps.of(maps), tokens=tokens)

    def maps_of_texts(self, grid: TokenGrid, draws: TextDraws) -> Sequence[TextMaps] | None:
        if type(self) is not Replace or not 0 < self.vocabulary < 1 << 32:
            return None
        if (found := self.mask.maps_of_texts(grid, draws._replace(goes_on=True))) is None:
            return None
        from .token_draws import replace_hidden

        hidden, tokens = np.stack([maps.hidden for maps in found]), draws.tokens.astype(np.int64)
        changed = self.keep + self.random
        replace_hidden(draws.streams, hidden, tokens, self.keep, changed, self.mask_id, self.vocabulary)
        return [replace(TextMaps.of(maps), tokens=row) for maps, row in zip(found, tokens, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderRows(Mask):
    """Add the tokens that each decoder position attends to: `TextMaskBatch.attend`, bool (B, N, N), True = attends.

    For a text of L tokens, min(L, pool) whole-word masks at `ratio` are drawn, independent of the encoder's. Row i
    picks one of them at random and attends to its visible tokens except i. Thus every row attends to all special
    tokens, such as [CLS], except itself. No row attends to padding; a padding row attends only to the first token. The
    convention is the one of scaled_dot_product_attention. Source: RetroMAE (Xiao et al. 2022, enhanced decoding), with
    ratios from 0.5 to 0.7.

    The matrix has N^2 bytes per sample and takes about 1 ms at N = 512.

    Attributes:
        encoder: Mask of the encoder.
        ratio: Fraction of tokens hidden from each decoder row, or a ratio schedule.
        pool: Largest number of masks drawn per text.
    """

    encoder: Mask = field(default_factory=WholeWords)
    ratio: Ratio = 0.5
    pool: PositiveInt = 256

    @property
    def needs(self) -> frozenset[str]:
        return self.encoder.needs | {"words"}

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.encoder.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> TextMaps:
        return replace(TextMaps.of(self.encoder.maps(grid, draw)), attend=self.attend(grid, draw))

    def attend(self, grid: TokenGrid, draw: Draw) -> Bools:
        """Draw the attention matrix of one view: bool (N, N), row i for position i."""
        words = TextWords.of(grid, draw, by="DecoderRows")
        n, masks = len(words.number), min(words.length, self.pool)
        count = words.hidden_count(as_schedule(self.ratio), draw, "nearest_masked")
        seen = ~words.spread(words.taken(masks, count, draw.rng))
        padding = draw.cues.need("words", by="DecoderRows") == PADDING
        seen[:, padding] = False
        matrix = np.zeros((n, n), dtype=np.bool_)
        matrix[~padding] = seen.take(draw.rng.integers(masks, size=words.length), axis=0)
        np.fill_diagonal(matrix, False)
        matrix[padding, 0] = True
        return matrix


SCHEMES = (
    Scheme(
        paper="BERT",
        section="sec. 3.1",
        mask=Padded(mask=Replace(mask=WholeWords(ratio=0.3), mask_id=103, vocabulary=30522)),
        grid=TEXT,
        title="Replaced tokens",
        note=(
            "Of the hidden tokens 80 % become [MASK], 10 % a random token, and 10 % stay unchanged; "
            "`TextMaskBatch.tokens` are the encoder's input ids."
        ),
    ),
    Scheme(
        name="retromae",
        paper="RetroMAE",
        section="enhanced decoding",
        mask=Padded(mask=DecoderRows(encoder=WholeWords(ratio=0.3), ratio=0.5)),
        grid=TokenGrid(axes=("token",), shape=(512,), patch=(1,)),
        title="Decoder rows",
        note=(
            "Whole words for the encoder. The decoder reconstructs every token, and each position attends to a "
            "random half of the tokens (`TextMaskBatch.attend`)."
        ),
    ),
)
