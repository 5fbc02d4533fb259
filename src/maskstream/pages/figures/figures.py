"""What a mask does to one sample, in numbers and in the paths that draw it; and the interface of a modality's figures:
cards of samples and of a model's predictions.

Figures are made of a data config and a split, for what a card says of a sample (how many points are stored) is not in a
batch; a template knows only cards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks import MaskBatch

from .card import Card, Fact
from .pictures import Bool, Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskCounts:
    """The counts of one sample's mask.

    visible: tokens that the encoder sees; mask_tokens: those of them that enter it as the mask token. targets: what the
    decoder reconstructs; weightless_targets: those of them without weight in the loss.
    """

    tokens: int
    visible: int
    mask_tokens: int
    targets: int
    weightless_targets: int

    @property
    def hidden_share(self) -> float:
        return 1.0 - self.visible / max(self.tokens, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRow:
    """The mask of one sample as arrays, bool (N,) each: what is hidden, and what is reconstructed; and its counts."""

    masked: Bool
    targeted: Bool
    counts: MaskCounts

    @classmethod
    def of(cls, mask: MaskBatch, sample: int, tokens: slice = slice(None)) -> MaskRow:
        """The mask of one `sample` of a batch, or of some of its `tokens`."""
        masked = mask.masked[sample].cpu().numpy().astype(bool)
        real = mask.target_valid[sample]
        target, weight = mask.target[sample][real].cpu().numpy(), mask.weight[sample][real].cpu().numpy()
        targeted, weightless, entered = (np.zeros(masked.size, dtype=bool) for _ in range(3))
        targeted[target] = True
        weightless[target] = weight == 0
        if mask.mask_token is not None:
            entered = mask.mask_token[sample].cpu().numpy().astype(bool)
        masked, targeted = masked[tokens], targeted[tokens]
        counts = MaskCounts(
            tokens=masked.size,
            visible=int((~masked).sum()),
            mask_tokens=int(entered[tokens].sum()),
            targets=int(targeted.sum()),
            weightless_targets=int(weightless[tokens].sum()),
        )
        return cls(masked=masked, targeted=targeted, counts=counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts(MaskCounts):
    """The counts of one clip's mask. A step is a slice of the grid in time: all tokens of the same pt frames.

    visible_per_step: tokens that the encoder sees in each of the t steps. kept_per_step: how many of them are at places
    that the encoder saw in the step before too (0 for the first). dwell: (h, w), in how many steps a place is visible.
    """

    per_step: int
    visible_per_step: tuple[int, ...]
    kept_per_step: tuple[int, ...]
    dwell: npt.NDArray[np.int64]

    @property
    def places_seen(self) -> int:
        """The places of the picture that are visible in at least one step."""
        return int((self.dwell > 0).sum())

    @property
    def kept_share(self) -> float | None:
        """The share of the visible tokens, first step aside, whose place was visible in the step before."""
        later = sum(self.visible_per_step[1:])
        return sum(self.kept_per_step) / later if later else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTokens:
    """The mask of one clip as arrays: `masked` and `targeted` bool (N,), and its counts."""

    masked: Bool
    targeted: Bool
    counts: TokenCounts

    @classmethod
    def of(cls, mask: MaskBatch, sample: int, grid: Grid) -> ClipTokens:
        """The mask of one `sample` of a batch; ValueError where it has not the grid's number of tokens."""
        row = MaskRow.of(mask, sample)
        t, h, w = grid.shape
        if row.masked.size != t * h * w:
            raise ValueError(f"the mask has {row.masked.size} tokens a clip, but the grid {grid.shape} has {t * h * w}")
        seen = ~row.masked.reshape(t, h, w)
        counts = TokenCounts(
            **asdict(row.counts),
            per_step=h * w,
            visible_per_step=tuple(seen.sum((1, 2)).tolist()),
            kept_per_step=(0, *(seen[1:] & seen[:-1]).sum((1, 2)).tolist()),
            dwell=seen.sum(0, dtype=np.int64),
        )
        return cls(masked=row.masked, targeted=row.targeted, counts=counts)


def runs_path(flags: Iterable[Bool]) -> str:
    """SVG path data that fills the True cells of the rows of `flags`, one unit square a cell, runs joined."""
    return "".join(f"M{a} {y}h{b - a}v1H{a}z" for y, a, b in _runs(flags))


def outline_path(flags: Bool) -> str:
    """SVG path data of the line around the True cells of `flags` (h, w), without the lines between them."""
    padded = np.pad(flags, 1)
    parts = [f"M{a} {y}h{b - a}" for y, a, b in _runs((padded[1:] ^ padded[:-1])[:, 1:-1])]
    parts += [f"M{x} {a}v{b - a}" for x, a, b in _runs((padded[:, 1:] ^ padded[:, :-1]).T[:, 1:-1])]
    return "".join(parts)


def _runs(flags: Iterable[Bool]) -> Iterator[tuple[int, int, int]]:
    """The runs of True in each row: row, first column, column after the last."""
    for y, row in enumerate(flags):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False])).astype(np.int8)))
        for a, b in edges.reshape(-1, 2).tolist():
            yield y, a, b


BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class Figures(Protocol[BatchT_contra]):
    """Cards of the samples of batches of one split."""

    def about(self, batch: BatchT_contra) -> tuple[str, dict[str, str]]:
        """A description of the samples in one or more sentences, and facts about all of them."""
        ...

    def sample(self, batch: BatchT_contra, i: int) -> Card:
        """The card of row `i` of a batch, with its mask."""
        ...

    def compared(self, batch: BatchT_contra, made: BatchT_contra, i: int) -> Card:
        """The card that compares row `i` of a batch with the model's prediction `made`."""
        ...


def mask_facts(counts: MaskCounts, noun: str = "tokens") -> tuple[Fact, ...]:
    """The numbers of one sample's mask."""
    entered = f"{counts.mask_tokens:,} of them enter as the mask token" if counts.mask_tokens else ""
    weightless = f"{counts.weightless_targets:,} without weight in the loss" if counts.weightless_targets else ""
    return (
        Fact(name=f"Visible {noun}", value=f"{counts.visible:,}", of=f"of {counts.tokens:,}", note=entered),
        Fact(name="Hidden", value=f"{100 * counts.hidden_share:.1f}\N{NO-BREAK SPACE}%"),
        Fact(name="Targets of the decoder", value=f"{counts.targets:,}", note=weightless),
    )
