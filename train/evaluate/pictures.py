"""Evaluates how well a model completes images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.shards.format.manifest import SplitLocation
from maskstream.train.nn.image_tokens import ImageTokens
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder
from maskstream.train.nn.video_tokens import VideoTokens

from .evaluation import NORMALISED, Compared, Evaluation
from .guesses import PixelLosses, measure_guesses, measure_patches
from .held_out import read_shuffled

UNIT = "levels of 255"
MEASURED = 256
"""The largest number of images that are measured."""
_AT_ONCE = 32
READING = (
    "The centre crop of a held-out picture, the patches that the encoder saw, and these patches with the model's "
    "predictions of the others. "
) + NORMALISED


def root_mean_square(made: Tensor, true: Tensor) -> float:
    """The root mean squared difference."""
    return float((made.float() - true.float()).square().mean().sqrt())


def evaluate(model: MaskedAutoencoder[ImageBatch], config: ImageData, data: SplitLocation, shown: int) -> Evaluation:
    """The loss on centre crops of shuffled pictures with the recipe's masks, and reconstructions of some.

    A model of pixels is compared with guesses from the visible pixels, as that of clips.
    """
    pictures = held_out_pictures(config, data)
    first = pictures[0]
    with torch.inference_mode():
        made = model.reconstructed(first)
    drawn = Compared(
        title="Reconstructions", reading=READING, batch=first, made=made, rows=range(min(shown, len(first)))
    )
    if isinstance(model.tokens, ImageTokens) and model.tokens.target == "pixels":
        pixels = measure_pixels(model, model.tokens, pictures)
        return Evaluation(scores=(pixels.score("pictures"),), examples=(drawn,), loss=pixels.training_loss())
    return Evaluation(scores=(measure_patches(model, pictures).score("pictures"),), examples=(drawn,))


@torch.inference_mode()
def measure_pixels(
    model: MaskedAutoencoder[ImageBatch], tokens: ImageTokens, pictures: Iterable[ImageBatch]
) -> PixelLosses:
    """The losses of a model of pixels on batches with masks, and those of all guesses: a picture is a clip of a frame.

    tokens: the model's.
    """
    grid = TokenGrid(axes=("t", "h", "w"), shape=(1, *tokens.grid), patch=(1, *tokens.patch))
    clip = VideoTokens(grid, "pixels")

    def predicted() -> Iterator[tuple[Tensor, MaskBatch, Tensor]]:
        for image, mask in map(tokens.of, pictures):
            made = model.predict(image, mask.visible, mask.target)
            yield (
                clip.inputs(clip.split(image[:, None])),
                mask,
                made.reshape(*made.shape[:2], -1, 3).transpose(2, 3).flatten(2),
            )

    return measure_guesses(clip, predicted())


def held_out_pictures(config: ImageData, data: SplitLocation) -> list[ImageBatch]:
    """Shuffled images of the split with the recipe's masks, without random crops and colours; the same each time."""
    plain = replace(config, views=1, augment=CenterCrop(), colour=None)
    return list(read_shuffled(plain, data, most=MEASURED, size=_AT_ONCE))
