"""Counts of a sample's mask, and the interface of a modality's figures: cards of samples and of a model's predictions.

Figures are built from a data config and a split, since some facts about a sample (such as the number of stored points)
are not in a batch; a template receives only cards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.arrays import Bools
from maskstream.shards.format.manifest import Manifest

from .card import Card, Fact, Facts, Figure, label_words
from .words import plural


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRow:
    """The mask of one sample as arrays.

    Attributes:
        masked: Hidden tokens, bool (N,).
        targeted: Reconstructed tokens, bool (N,).
        mask_tokens: Number of visible tokens that enter the encoder as the mask token.
        weightless_targets: Number of targets without weight in the loss.
    """

    masked: Bools
    targeted: Bools
    mask_tokens: int = 0
    weightless_targets: int = 0

    @classmethod
    def of(cls, mask: MaskBatch, sample: int, tokens: slice = slice(None)) -> MaskRow:
        """Return the mask of one sample of a batch.

        Args:
            mask: Masks of the batch.
            sample: Row of the sample.
            tokens: Tokens to select.
        """
        masked = mask.masked[sample].cpu().numpy().astype(bool)
        real = mask.target_valid[sample]
        target, weight = mask.target[sample][real].cpu().numpy(), mask.weight[sample][real].cpu().numpy()
        targeted, weightless = np.zeros((2, masked.size), dtype=bool)
        targeted[target], weightless[target] = True, weight == 0
        entered = 0 if mask.mask_token is None else int(mask.mask_token[sample][tokens].sum())
        return cls(
            masked=masked[tokens],
            targeted=targeted[tokens],
            mask_tokens=entered,
            weightless_targets=int(weightless[tokens].sum()),
        )

    @property
    def visible(self) -> int:
        """The number of visible tokens."""
        return int((~self.masked).sum())


BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class Figures(Protocol[BatchT_contra]):
    """Draws cards of the samples in batches of one split."""

    def about(self, batch: BatchT_contra) -> tuple[str, dict[str, str]]:
        """Describe the samples in one or more sentences, and return facts about all of them."""
        ...

    def sample(self, batch: BatchT_contra, i: int) -> Card:
        """Draw the card of row `i` of a batch, with its mask.

        Args:
            batch: The batch.
            i: Row.
        """
        ...

    def compared(self, batch: BatchT_contra, made: BatchT_contra, i: int) -> Card:
        """Draw the card that compares row `i` of a batch with the model's prediction `made`.

        Args:
            batch: The batch.
            made: The prediction.
            i: Row.
        """
        ...


def mask_facts(mask: MaskRow, noun: str = "tokens") -> tuple[Fact, ...]:
    """Return the numbers of one sample's mask.

    Args:
        mask: The mask.
        noun: Word for tokens.
    """
    entered = f"{mask.mask_tokens:,} of them enter as the mask token" if mask.mask_tokens else ""
    weightless = f"{mask.weightless_targets:,} without weight in the loss" if mask.weightless_targets else ""
    hidden = 1 - mask.visible / max(mask.masked.size, 1)
    return (
        Fact(name=f"Visible {noun}", value=f"{mask.visible:,}", of=f"of {mask.masked.size:,}", note=entered),
        Fact(name="Hidden", value=f"{100 * hidden:.1f}\N{NO-BREAK SPACE}%"),
        Fact(name="Targets of the decoder", value=f"{int(mask.targeted.sum()):,}", note=weightless),
    )


def sample_card(
    batch: Batch,
    i: int,
    words: str,
    figures: Sequence[Figure],
    masks: Mapping[str, MaskRow | None],
    *,
    names: Sequence[str] = (),
    noun: str = "tokens",
    more: Sequence[Fact] = (),
    missing: Sequence[str] = (),
    icon: str = "",
) -> Card:
    """Return the card of row `i` of a batch.

    Args:
        batch: The batch.
        i: Row.
        words: Description of the sample.
        figures: Figures of the sample.
        masks: Mask of each part by name, "" for the whole sample; None without a mask.
        names: Names of the labels.
        noun: Word for tokens.
        more: Facts after the facts of each mask.
        missing: Notes on missing figures.
        icon: Small image for the table of contents.
    """
    groups = {part: (*(mask_facts(mask, noun) if mask else ()), *more) for part, mask in masks.items()}
    without = [f" of the {part.lower()}" if part else "" for part, mask in masks.items() if mask is None]
    return Card(
        key=batch.key[i],
        words=words,
        label=label_words(int(batch.label[i]), names),
        facts=tuple(Facts(title=part, items=items) for part, items in groups.items() if items),
        figures=tuple(figures),
        missing=(*(f"The loader was built without a mask{part}." for part in without), *missing),
        icon=icon,
    )


def received(count: int, noun: str, more: str = "") -> str:
    """Return the beginning of a description of samples.

    Args:
        count: Number of samples.
        noun: Word for a sample.
        more: Text after the noun.
    """
    return f"{plural(count, noun)}{more} as the training loop receives {'it' if count == 1 else 'them'}"


def find_sample(manifest: Manifest, key: str) -> int:
    """Return the index of a sample in its manifest.

    Args:
        manifest: The split.
        key: Key of the sample.
    """
    return manifest.keys(range(len(manifest))).index(key)
