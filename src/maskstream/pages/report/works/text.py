"""A report's sections on texts: what a model predicts of hidden tokens, and the classes that it gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ....pipelines.modalities.text.batch import TextBatch
from ....pipelines.modalities.text.data import TextData
from ....shards.format.dataset import read_dataset_json
from ....shards.format.manifest import Manifest
from ....train.evaluate.held_out import batches
from ....train.nn.token_model import TokenModel
from ....train.papers.bert.evaluate import held_out
from ....train.papers.roar.evaluate import held_out as held_out_classes
from ....train.papers.roar.model import TextClassifier
from ...figures.card import Section, label_names, label_words
from ...figures.figures import Figures
from ...figures.work import Work, compared

READING = (
    "A held-out text with the tokens that the model had to predict, and with the most probable token in their places. "
    "The head of the page says how many of all hidden tokens it predicts right."
)
CLASSES = "Held-out texts, with the model's class under each."


def show(config: TextData, model: TokenModel, data: str | Path, shown: int, figures: Figures[TextBatch]) -> Work:
    """Predictions of shuffled samples with the recipe's masks."""
    size = min(shown, len(Manifest.load(data)))
    batch = next(batches(config, data, size=size, samples=size, shuffle=True))
    section = compared(figures, batch, model, title="Predictions", words=READING, rows=shown)
    return Work(found=held_out(config, model, data), sections=(section,))


def show_classes(
    config: TextData, model: TextClassifier, data: str | Path, shown: int, figures: Figures[TextBatch]
) -> Work:
    """The classes of shuffled samples."""
    size = min(shown, len(Manifest.load(data)))
    batch = next(batches(config, data, size=size, samples=size, shuffle=True))
    names = label_names(read_dataset_json(data))
    with torch.inference_mode():
        found = model.scores(batch).argmax(dim=1).tolist()
    cards = tuple(
        replace(figures.sample(batch, i), note=f"The model says {label_words(found[i], names)}.", missing=())
        for i in range(size)
    )
    section = Section(title="Classes", words=CLASSES, cards=cards, layout="columns")
    return Work(found=held_out_classes(config, model, data), sections=(section,))
