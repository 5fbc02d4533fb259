"""A report's sections on images: reconstructions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ....pipelines.modalities.image.batch import ImageBatch
from ....pipelines.modalities.image.data import ImageData
from ....train.evaluate.evaluation import NORMALISED
from ....train.evaluate.pictures import held_out, held_out_pictures
from ....train.nn.masked_autoencoder import MaskedAutoencoder
from ...figures.figures import Figures
from ...figures.work import Work, compared

READING = (
    "The centre crop of a held-out image, the patches that the encoder saw, and these patches with the model's "
    "predictions of the others. "
)


LATENTS = "The mean squared error over the target tokens' normalised latents"


def show(
    config: ImageData, model: MaskedAutoencoder[ImageBatch], data: str | Path, shown: int, figures: Figures[ImageBatch]
) -> Work:
    """Reconstructions of shuffled samples with the recipe's masks."""
    batch = held_out_pictures(config, data)[0]
    section = compared(figures, batch, model, title="Reconstructions", words=READING + NORMALISED, rows=shown)
    return Work(found=held_out(config, model, data), sections=(section,))


def show_latents(
    config: ImageData, model: MaskedAutoencoder[ImageBatch], data: str | Path, shown: int, figures: Figures[ImageBatch]
) -> Work:
    """The same of a model of latents; pictures are drawn from these."""
    work = show(config, model, data, shown, figures)
    return replace(work, found=replace(work.found, loss=LATENTS))
