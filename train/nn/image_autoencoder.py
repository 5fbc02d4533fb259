"""The masked autoencoder of pictures: MAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.train.core.model import Grids

from .image_tokens import FirstAxis, ImageTokens
from .masked_autoencoder import AutoencoderConfig, TokenKind
from .video_tokens import Targets


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAutoencoderConfig(AutoencoderConfig[ImageBatch]):
    """The sizes of an autoencoder of patches of pictures.

    target: what the decoder predicts, "normalised" patches or "pixels" (see tokens/video.py). positions: the axis that
    has the first half of the position embeddings; "columns" in the weights that MAE's authors published.
    """

    target: Targets = "normalised"
    positions: FirstAxis = "rows"

    def __post_init__(self) -> None:
        AutoencoderConfig.__post_init__(self)
        for name, legal in (("target", get_args(Targets)), ("positions", get_args(FirstAxis))):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} is one of {', '.join(legal)}, got {getattr(self, name)!r}")

    def tokens(self, grids: Grids) -> TokenKind[ImageBatch]:
        """Patches on the grid "image"."""
        return ImageTokens(grids["image"], self.target, self.positions)
