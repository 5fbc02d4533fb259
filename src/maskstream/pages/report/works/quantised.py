"""A report's sections on quantisers: pictures drawn from their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....train.evaluate.held_out import trained_on
from ....train.evaluate.quantised import drawing_errors, held_out_batches
from ....train.models.vq_autoencoder import VQAutoencoder
from ...figures.figures import Figures
from ...figures.work import Work, compared

READING = (
    "Held-out pictures, and what the decoder draws of the ids of their cells alone: one of {codes} for {cell} x "
    "{cell} pixels."
)


def show(config: Any, model: VQAutoencoder[Any], data: str | Path, shown: int, figures: Figures[Any]) -> Work:
    """Reconstructions of shuffled samples."""
    measured, known = (held_out_batches(config, split) for split in (data, trained_on(data)))
    sizes = model.config.quantiser
    words = READING.format(codes=sizes.codes, cell=sizes.cell)
    section = compared(figures, measured[0], model, title="Reconstructions", words=words, rows=shown)
    return Work(found=drawing_errors(model, measured, known).held_out(), sections=(section,))
