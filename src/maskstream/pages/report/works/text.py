"""A report's sections on texts: what a model predicts of hidden tokens."""

from __future__ import annotations

from pathlib import Path

from ....pipelines.modalities.text.batch import TextBatch
from ....pipelines.modalities.text.data import TextData
from ....shards.format.manifest import Manifest
from ....train.evaluate.held_out import batches
from ....train.evaluate.masked_tokens import held_out
from ....train.models.token_model import TokenModel
from ...figures.figures import Figures
from ...figures.work import Work, compared

READING = (
    "A held-out text with the tokens that the model had to predict, and with the most probable token in their places. "
    "The head of the page says how many of all hidden tokens it predicts right."
)


def show(config: TextData, model: TokenModel, data: str | Path, shown: int, figures: Figures[TextBatch]) -> Work:
    """Predictions of shuffled samples with the recipe's masks."""
    size = min(shown, len(Manifest.load(data)))
    batch = next(batches(config, data, size=size, samples=size, shuffle=True))
    section = compared(figures, batch, model, title="Predictions", words=READING, rows=shown)
    return Work(found=held_out(config, model, data), sections=(section,))
