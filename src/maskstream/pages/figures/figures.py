"""The interface of a modality's figures: cards of samples and of a model's predictions.

Figures are made of a data config and a split, for what a card says of a sample (how many points are stored) is not in a
batch; a template knows only cards.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from .card import Card, Fact
from .tokens import MaskCounts

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
