"""The results of a model that a report shows, for any modality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ...train.core.model import Model
from ...train.evaluate.held_out import HeldOut
from .card import Section
from .figures import Figures


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The results of a model. found: measured values on the split. sections: its predictions for some samples."""

    found: HeldOut
    sections: tuple[Section, ...]


class ShowWork(Protocol):
    """Gives the results of a trained model, on the CPU in eval mode, on `shown` samples of the split at `data`.

    The samples are the same at each call. config: the recipe's data config; figures: those of its batches.
    """

    def __call__(self, config: Any, model: Any, data: str | Path, shown: int, figures: Figures[Any]) -> Work: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What is generated. count: samples. rounds: of iterative decoding. temperature: None for the model's own. seed:
    decides all draws.
    """

    count: int = 16
    rounds: int = 12
    temperature: float | None = None
    seed: int = 0


class ShowGenerated(Protocol):
    """Gives a section of what a trained model, on the CPU in eval mode, generates, beside samples of a split."""

    def __call__(self, config: Any, model: Any, data: str | Path, drawn: Drawn) -> Section: ...


def compared(figures: Figures[Any], batch: Any, model: Model[Any], *, title: str, words: str, rows: int) -> Section:
    """Cards that compare the first rows of a batch with the predictions of the model."""
    with torch.inference_mode():
        made = model.reconstructed(batch)
    cards = tuple(figures.compared(batch, made, i) for i in range(min(rows, len(batch))))
    return Section(title=title, words=words, cards=cards, layout="columns")
