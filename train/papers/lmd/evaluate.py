"""Evaluates the reconstruction of masked latents, of which pictures are drawn."""

from dataclasses import replace

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate import patches
from maskstream.train.evaluate.evaluation import Evaluation, TrainingLoss
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder

from .model import LatentAutoencoderConfig


def evaluate(model: MaskedAutoencoder[ImageBatch], config: ImageData, data: Manifest, shown: int) -> Evaluation:
    """As of an autoencoder of pictures."""
    loss = TrainingLoss(name="The mean squared error over the target tokens' normalised latents")
    return replace(patches.evaluate(model, config, data, shown), loss=loss)


EVALUATIONS = {LatentAutoencoderConfig: evaluate}
