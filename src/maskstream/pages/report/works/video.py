"""A model's work on video: reconstructions, and the same clips with their masks and their motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ....pipelines.augment import CenterCrop
from ....pipelines.modalities.video.batch import VideoBatch
from ....pipelines.modalities.video.data import VideoData
from ....train.evaluate.clips import UNIT, beside_guess, held_out, of_pixels, pixel_losses, wholly_decoded
from ....train.evaluate.evaluation import NORMALISED
from ....train.evaluate.guesses import harmonic
from ....train.evaluate.held_out import batches
from ....train.nn.masked_autoencoder import MaskedAutoencoder
from ...figures.card import Section
from ...figures.figures import Figures
from ...figures.video import VideoFigures
from ...figures.work import Work, compared

READING = (
    "The encoder saw only the bright tokens of the second row. In the rows below they are pasted from the original, "
    "and the others are predictions. "
)
UNPREDICTED = " Grey tokens were neither shown nor predicted."
GUESSED = (
    "The third row is the best prediction that needs no training: each hidden pixel is the mean of its neighbours, in "
    "the picture and in time. The last row is the model's. Neither saw the hidden pixels. Errors are mean squared "
    f"errors of the hidden pixels, in {UNIT}. "
)


def show(
    config: VideoData, model: MaskedAutoencoder[VideoBatch], data: str | Path, shown: int, figures: Figures[VideoBatch]
) -> Work:
    """Reconstructions of centre crops of randomly chosen samples of the split, with the recipe's masks."""
    plain = shown_data(wholly_decoded(config))
    batch = next(iter(batches(plain, data, size=shown, samples=shown, shuffle=True)))
    guides = config.mask is not None and "flow" in config.mask.needs
    flow = figures.about(batch)[1]["flow"] if guides else "DIS, shown only; the mask does not use it"
    if of_pixels(model) and isinstance(figures, VideoFigures):
        losses = pixel_losses(config, model, data)
        found = losses.held_out(config)
        work = replace(beside_guesses(figures, batch, model), numbers=losses.table())
    else:
        found = held_out(config, model, data)
        work = compared(figures, batch, model, title="Reconstructions", words=reading(batch), rows=shown)
    return Work(
        found=replace(found, facts={**found.facts, "flow": flow}),
        sections=(
            work,
            Section(
                title="The same clips, their masks and their motion",
                cards=tuple(figures.sample(batch, i) for i in range(len(batch))),
            ),
        ),
    )


def beside_guesses(figures: VideoFigures, batch: VideoBatch, model: MaskedAutoencoder[VideoBatch]) -> Section:
    """Reconstructions beside harmonic interpolation, with the errors of both."""
    guessed, errors = beside_guess(harmonic, model, batch)
    with torch.inference_mode():
        made = model.reconstructed(batch)
    cards = tuple(
        figures.compared(batch, made, i, guessed, f"Error {own:.2f}, of the interpolation {guess:.2f}")
        for i, (own, guess) in enumerate(errors)
    )
    return Section(title="Reconstructions", words=READING + GUESSED + unpredicted(batch), cards=cards, layout="columns")


def reading(batch: VideoBatch) -> str:
    """How to read reconstructions of normalised tokens of a batch of masked clips."""
    return READING + NORMALISED + unpredicted(batch)


def unpredicted(batch: VideoBatch) -> str:
    """What grey tokens are, where a batch has tokens that are neither shown nor predicted."""
    mask = batch.mask
    absent = mask is not None and int(mask.target_valid.sum()) < int(mask.masked.sum())
    return UNPREDICTED if absent else ""


def shown_data(config: VideoData) -> VideoData:
    """Central crops, with DIS flow where the mask asks for none."""
    flow = config.flow if config.mask is not None and "flow" in config.mask.needs else "dis"
    return replace(config, augment=CenterCrop(), flow=flow)
