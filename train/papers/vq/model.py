"""The training of a quantiser: images or frames are encoded, quantised and decoded (nn/quantiser.py)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, squared
from maskstream.train.nn.quantiser import Quantiser, QuantiserConfig, check_cells, to_inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class VQAutoencoderConfig(ModelConfig[BatchT]):
    """A quantiser to train.

    The data's tokens are the cells of the quantiser, so its patch is `quantiser.cell` pixels, of one frame.
    """

    GRID: ClassVar[str]

    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)

    @abstractmethod
    def pixels(self, batch: BatchT) -> Tensor:
        """Return the pixels of a batch, uint8 (B, [T,] H, W, 3)."""

    @abstractmethod
    def redrawn(self, batch: BatchT, pixels: Tensor) -> BatchT:
        """Return the batch with other pixels.

        Args:
            batch: The batch.
            pixels: New pixels, in the shape of the batch's.
        """

    def make(self, grids: Grids) -> VQAutoencoder[BatchT]:
        """See ModelConfig."""
        check_cells(self.quantiser, grids, self.GRID)
        return VQAutoencoder(self, grids)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageVQConfig(VQAutoencoderConfig[ImageBatch]):
    """A quantiser trained on images."""

    GRID: ClassVar[str] = "image"

    def pixels(self, batch: ImageBatch) -> Tensor:
        """See VQAutoencoderConfig."""
        return batch.image

    def redrawn(self, batch: ImageBatch, pixels: Tensor) -> ImageBatch:
        """See VQAutoencoderConfig.

        Args:
            batch: The batch.
            pixels: New pixels, in the shape of the batch's.
        """
        return replace(batch, image=pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoVQConfig(VQAutoencoderConfig[VideoBatch]):
    """A quantiser trained on the frames of clips."""

    GRID: ClassVar[str] = "video"

    def pixels(self, batch: VideoBatch) -> Tensor:
        """See VQAutoencoderConfig."""
        return batch.video

    def redrawn(self, batch: VideoBatch, pixels: Tensor) -> VideoBatch:
        """See VQAutoencoderConfig.

        Args:
            batch: The batch.
            pixels: New pixels, in the shape of the batch's.
        """
        return replace(batch, video=pixels)


class VQAutoencoder(Model[BatchT]):
    """A quantiser in training."""

    whole_graph = True

    def __init__(self, config: VQAutoencoderConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        self.quantiser = Quantiser(config.quantiser)

    def loss(self, batch: BatchT) -> Losses:
        """Return the squared error of the images decoded from rounded latents, for values in [-1, 1]."""
        pixels = self.config.pixels(batch)
        made = self.quantiser.drawn(self.quantiser.rounding(self.quantiser.latents(pixels)))
        weight = made.new_ones(len(batch)) if batch.weight is None else batch.weight
        weight = weight.repeat_interleave(len(made) // len(batch))
        error = squared(made.flatten(1), to_inputs(pixels).flatten(1), weight)
        return Losses(parts={"reconstruction": error})

    def reconstructed(self, batch: BatchT) -> BatchT:
        """Return the batch decoded from its ids."""
        with torch.no_grad():
            ids = self.quantiser.ids(self.config.pixels(batch))
            return self.config.redrawn(batch, self.quantiser.decode(ids))
