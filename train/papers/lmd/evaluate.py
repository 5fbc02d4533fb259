"""Evaluates the reconstruction of masked latents, of which pictures are drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ....pipelines.modalities.image.batch import ImageBatch
from ....pipelines.modalities.image.data import ImageData
from ...evaluate import pictures
from ...evaluate.evaluation import Evaluation, TrainingLoss
from ...nn.masked_autoencoder import MaskedAutoencoder
from .model import LatentAutoencoderConfig


def evaluate(model: MaskedAutoencoder[ImageBatch], config: ImageData, data: str | Path, shown: int) -> Evaluation:
    """As of an autoencoder of pictures."""
    loss = TrainingLoss(name="The mean squared error over the target tokens' normalised latents")
    return replace(pictures.evaluate(model, config, data, shown), loss=loss)


EVALUATIONS = {LatentAutoencoderConfig: evaluate}
