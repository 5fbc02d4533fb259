"""A report's sections on images with texts: what a model predicts of both, and its answers to questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ....pipelines.modalities.image_text.batch import ImageTextBatch
from ....pipelines.modalities.image_text.data import ImageTextData
from ....shards.format.dataset import read_dataset_json
from ....shards.format.manifest import Manifest
from ....train.evaluate.evaluation import NORMALISED
from ....train.evaluate.held_out import batches
from ....train.papers.m3ae.answers import held_out as held_out_answers
from ....train.papers.m3ae.classifier import ImageTextClassifier
from ....train.papers.m3ae.evaluate import held_out, held_out_samples
from ....train.papers.m3ae.model import ImageTextAutoencoder
from ...figures.card import Card, Section, label_names, label_words
from ...figures.figures import Figures
from ...figures.work import Work, compared

READING = (
    "A held-out image and its text, what the encoder saw of the image, and both with the model's predictions in the "
    "places that were hidden. Patches are predicted from the visible ones and the whole text, words from the visible "
    "ones and the whole image. "
)
ANSWERS = "Held-out questions, with the model's answer under each."


def show(
    config: ImageTextData,
    model: ImageTextAutoencoder,
    data: str | Path,
    shown: int,
    figures: Figures[ImageTextBatch],
) -> Work:
    """Predictions for shuffled samples with the recipe's masks."""
    batch = held_out_samples(config, data)[0]
    section = compared(figures, batch, model, title="Predictions", words=READING + NORMALISED, rows=shown)
    return Work(found=held_out(config, model, data), sections=(section,))


def show_answers(
    config: ImageTextData,
    model: ImageTextClassifier,
    data: str | Path,
    shown: int,
    figures: Figures[ImageTextBatch],
) -> Work:
    """Answers to shuffled questions."""
    size = min(shown, len(Manifest.load(data)))
    batch = next(batches(config, data, size=size, samples=size, shuffle=True))
    names = label_names(read_dataset_json(data))
    with torch.inference_mode():
        found = model.scores(batch).argmax(dim=1).tolist()
    cards = tuple(_answered(figures.sample(batch, i), found[i], names) for i in range(size))
    section = Section(title="Answers", words=ANSWERS, cards=cards, layout="columns")
    return Work(found=held_out_answers(config, model, data), sections=(section,))


def _answered(card: Card, found: int, names: tuple[str, ...]) -> Card:
    """The card of a question with the model's answer."""
    return replace(card, note=f"The model answers {label_words(found, names)}.", missing=())
