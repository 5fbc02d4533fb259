"""A report's sections on phrases: the boxes and segments that a model finds for them."""

from __future__ import annotations

from pathlib import Path

import torch

from ....pipelines.modalities.image_text.batch import ImageTextBatch
from ....pipelines.modalities.image_text.data import ImageTextData
from ....shards.format.manifest import Manifest
from ....train.evaluate.held_out import batches
from ....train.papers.oneref.boxes import overlap
from ....train.papers.oneref.evaluate import held_out, whole
from ....train.papers.oneref.model import OneRef
from ...figures.card import Section
from ...figures.figures import Figures
from ...figures.image_text import ImageTextFigures
from ...figures.work import Work

READING = "Held-out phrases, with the box and the pixels that each refers to, and those that the model finds."


def show_boxes(
    config: ImageTextData, model: OneRef, data: str | Path, shown: int, figures: Figures[ImageTextBatch]
) -> Work:
    """What the model finds for shuffled phrases."""
    if not isinstance(figures, ImageTextFigures):
        raise TypeError(f"boxes are shown by ImageTextFigures, got {type(figures).__name__}")
    size = min(shown, len(Manifest.load(data)))
    batch = next(batches(whole(config), data, size=size, samples=size, shuffle=True))
    with torch.inference_mode():
        made = model.reconstructed(batch)
    titles = [f"Overlap {float(one):.2f}" for one in overlap(made.box, batch.box)]
    cards = tuple(figures.referred(batch, made, i, title) for i, title in enumerate(titles))
    section = Section(title="Phrases", words=READING, cards=cards, layout="columns")
    return Work(found=held_out(config, model, data), sections=(section,))
