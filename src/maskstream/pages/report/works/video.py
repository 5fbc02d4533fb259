"""A model's work on video: reconstructions, and the same clips with their masks and their motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ....pipelines.augment import CenterCrop
from ....pipelines.modalities.video.batch import VideoBatch
from ....pipelines.modalities.video.data import VideoData
from ....train.evaluate.clips import held_out
from ....train.evaluate.held_out import batches
from ....train.models.masked_autoencoder import MaskedAutoencoder
from ...figures.card import Section
from ...figures.figures import Figures
from ...figures.work import NORMALISED, Work, compared

READING = (
    "The encoder saw only the bright tokens of the middle row. In the bottom row they are pasted from the original, "
    "and the others are the model's predictions. "
)
UNPREDICTED = " Grey tokens in the bottom row were neither shown nor predicted."


def show(
    config: VideoData, model: MaskedAutoencoder[VideoBatch], data: str | Path, shown: int, figures: Figures[VideoBatch]
) -> Work:
    """Reconstructions of centre crops of randomly chosen samples of the split, with the recipe's masks."""
    plain = replace(shown_data(config), views=1)
    batch = next(iter(batches(plain, data, size=shown, samples=shown, shuffle=True)))
    guides = config.mask is not None and "flow" in config.mask.needs
    flow = figures.about(batch)[1]["flow"] if guides else "DIS, shown only; the mask does not use it"
    found = held_out(plain, model, data)
    return Work(
        found=replace(found, facts={**found.facts, "flow": flow}),
        sections=(
            compared(figures, batch, model, title="Reconstructions", words=reading(batch), rows=shown),
            Section(
                title="The same clips, their masks and their motion",
                cards=tuple(figures.sample(batch, i) for i in range(len(batch))),
            ),
        ),
    )


def reading(batch: VideoBatch) -> str:
    """How to read reconstructions of a batch of masked clips."""
    mask = batch.mask
    absent = mask is not None and int(mask.target_valid.sum()) < int(mask.masked.sum())
    return READING + NORMALISED + (UNPREDICTED if absent else "")


def shown_data(config: VideoData) -> VideoData:
    """Central crops, with DIS flow where the mask asks for none."""
    flow = config.flow if config.mask is not None and "flow" in config.mask.needs else "dis"
    return replace(config, augment=CenterCrop(), flow=flow)
