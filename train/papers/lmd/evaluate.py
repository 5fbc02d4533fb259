"""Evaluates the reconstruction of masked latents, which are decoded to images."""

from dataclasses import replace

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate import patches
from maskstream.train.evaluate.evaluation import Evaluation, TrainingLoss
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder

from .model import LatentAutoencoderConfig


def evaluate(model: MaskedAutoencoder[ImageBatch], config: ImageData, data: Manifest, shown: int) -> Evaluation:
    """Evaluate like an autoencoder of images.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    loss = TrainingLoss(name="The mean squared error over the target tokens' normalised latents")
    return replace(patches.evaluate(model, config, data, shown), loss=loss)


EVALUATIONS = {LatentAutoencoderConfig: evaluate}
