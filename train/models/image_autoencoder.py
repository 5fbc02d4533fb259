"""The masked autoencoder of pictures: MAE."""

from __future__ import annotations

from dataclasses import dataclass

from ...pipelines.modalities.image.batch import ImageBatch
from ..core.model import Grids
from ..tokens.image import ImageTokens
from .masked_autoencoder import AutoencoderConfig, Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAutoencoderConfig(AutoencoderConfig[ImageBatch]):
    """The sizes of an autoencoder of patches of pictures."""

    def tokens(self, grids: Grids) -> Tokens[ImageBatch]:
        """Patches on the grid "image"."""
        return ImageTokens(grids["image"])
