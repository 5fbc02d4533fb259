"""A report's sections on models of ids of pictures: hidden cells predicted, and pictures from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ....pipelines.modalities.image.batch import ImageBatch
from ....pipelines.modalities.image.data import ImageData
from ....train.evaluate.generated_pictures import TEMPERATURE, generated_ids, set_distances
from ....train.evaluate.masked_ids import IdCounts, hidden_id_losses, training_pictures
from ....train.evaluate.pictures import held_out_pictures
from ....train.models.generative_encoder import GenerativeEncoder
from ...figures.card import Card, Picture, Pictures, Section
from ...figures.figures import Figures
from ...figures.pictures import data_uri, resize
from ...figures.work import Drawn, Work, compared

READING = (
    "The centre crop of a held-out picture, the cells whose ids the encoder saw, and these cells with what the "
    "quantiser draws of the most probable ids of the others. "
)
GENERATED = (
    "Pictures from nothing: all ids are hidden, and filled in over {rounds} rounds, the most certain first. Beside "
    "them stand real held-out pictures, and what the quantiser makes of their true ids, which is the best that the "
    "model could draw."
)
SIDE_PX, ACROSS = 96, 4


def show(
    config: ImageData, model: GenerativeEncoder, data: str | Path, shown: int, figures: Figures[ImageBatch]
) -> Work:
    """Predictions for shuffled samples with the recipe's masks, and generated pictures."""
    measured, known = held_out_pictures(config, data), training_pictures(config, data)
    counts = IdCounts.of((model.vq.ids(batch.image) for batch in known), model.blank)
    found = hidden_id_losses(model, measured, counts).held_out(config)
    real, trained = (torch.cat([batch.image for batch in part]) for part in (measured, known))
    distances = set_distances(model, real, trained, counts).facts()
    section = compared(figures, measured[0], model, title="Predictions", words=READING, rows=shown)
    return Work(
        found=replace(found, facts={**found.facts, **distances}),
        sections=(section, generated(config, model, data, Drawn())),
    )


def generated(config: ImageData, model: GenerativeEncoder, data: str | Path, drawn: Drawn) -> Section:
    """Generated pictures beside real ones of the split."""
    real = held_out_pictures(config, data)[0].image[: drawn.count]
    temperature = TEMPERATURE if drawn.temperature is None else drawn.temperature
    ids = generated_ids(model, drawn.count, rounds=drawn.rounds, temperature=temperature, seed=drawn.seed)
    with torch.inference_mode():
        rows = {
            "Generated": model.drawn(ids),
            "Real": real,
            "Real, drawn from their ids": model.vq.decode(model.vq.ids(real)),
        }
    cards = tuple(_card(name, pictures) for name, pictures in rows.items())
    return Section(
        title="Generated pictures", words=GENERATED.format(rounds=drawn.rounds), cards=cards, layout="columns"
    )


def _card(name: str, pictures: Tensor) -> Card:
    made: Sequence[Picture] = [
        Picture(uri=data_uri(one), alt=f"{name} {i + 1}")
        for i, one in enumerate(resize(pictures.numpy(), SIDE_PX, SIDE_PX))
    ]
    return Card(key=name, words="", figures=(Pictures(items=tuple(made), across=ACROSS),))
