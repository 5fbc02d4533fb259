"""The masked autoencoder of pictures: MAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ...pipelines.modalities.image.batch import ImageBatch
from ..core.model import Grids
from ..tokens.image import ImageTokens
from ..tokens.video import Targets
from .masked_autoencoder import AutoencoderConfig, Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAutoencoderConfig(AutoencoderConfig[ImageBatch]):
    """The sizes of an autoencoder of patches of pictures.

    target: what the decoder predicts, "normalised" patches or "pixels" (see tokens/video.py).
    """

    target: Targets = "normalised"

    def __post_init__(self) -> None:
        AutoencoderConfig.__post_init__(self)
        if self.target not in get_args(Targets):
            raise ValueError(f"target is one of {', '.join(get_args(Targets))}, got {self.target!r}")

    def tokens(self, grids: Grids) -> Tokens[ImageBatch]:
        """Patches on the grid "image"."""
        return ImageTokens(grids["image"], self.target)
