"""A report's sections on models of two views: the second views, completed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ....train.evaluate.held_out import batches
from ....train.evaluate.view_pairs import held_out
from ....train.models.cross_autoencoder import CropPairModel, CrossAutoencoder
from ...figures.card import Section
from ...figures.figures import Figures
from ...figures.work import NORMALISED, Work

READING = (
    "A second view of a held-out sample, the patches of it that the encoder saw, and these with the model's "
    "predictions of the others, made with the help of the whole first view. "
)


def show(config: Any, model: CrossAutoencoder[Any], data: str | Path, shown: int, figures: Figures[Any]) -> Work:
    """Completed second views of shuffled samples."""
    batch = next(iter(batches(config, data, size=shown, samples=shown, shuffle=True)))
    with torch.inference_mode():
        made = model.reconstructed(batch)
    step = 2 if isinstance(model, CropPairModel) else 1
    cards = tuple(figures.compared(batch, made, i) for i in range(step - 1, step * shown, step))
    section = Section(title="Reconstructions", words=READING + NORMALISED, cards=cards, layout="columns")
    return Work(found=held_out(config, model, data), sections=(section,))
