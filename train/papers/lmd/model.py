"""The masked autoencoder of latents: LMD (Ma et al., 2023).

A frozen autoencoder encodes each image into a small grid of latents, and a masked autoencoder learns patches of it. The
frozen autoencoder is the quantiser of a finished run (nn/quantiser.py), without rounding.

Shapes: B samples, N tokens of p x p latents of C channels.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.train.core.model import Grids
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig
from maskstream.train.nn.media_tokens import ImagePositions, TokenKind, build_image_positions
from maskstream.train.nn.quantiser import FrozenQuantiser, QuantiserConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentAutoencoderConfig(AutoencoderConfig[ImageBatch]):
    """The sizes of an autoencoder of latent patches, and the source of the latents.

    Attributes:
        vq: The model.safetensors of a run that trained a quantiser (see FrozenQuantiser).
        quantiser: Sizes of the quantiser. The data's patch is p times its cell.
        positions: Fixed positions; see ImagePositions.
    """

    vq: str | None = "runs/vq-tiny/model.safetensors"
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    positions: ImagePositions = "rows"

    def tokens(self, grids: Grids) -> TokenKind[ImageBatch]:
        """Return the patches of latents on the grid "image"; raise ValueError if they are not multiples of the
        quantiser's cells.
        """
        return LatentTokens(grids["image"], FrozenQuantiser(self.quantiser, self.vq), self.positions)


class LatentTokens(TokenKind[ImageBatch]):
    """Cuts latents into (h w)-ordered patches, in (h w c) order within a patch; targets have mean 0 and variance 1."""

    medium = "image"
    axes = ("h", "w")

    def __init__(self, grid: TokenGrid, vq: FrozenQuantiser, places: ImagePositions = "rows") -> None:
        cell = vq.config.cell
        if any(side % cell for side in grid.patch):
            raise ValueError(
                f"the quantiser has cells of {cell} pixels, which do not divide patches of {grid.patch}; make "
                f"data.patch a multiple of {cell}"
            )
        super().__init__(replace(grid, patch=tuple(side // cell for side in grid.patch)), len(vq.config.levels))
        self.vq, self.places = vq, places

    def media(self, batch: ImageBatch) -> Tensor:
        """Return the latents of a batch, float32 (B, rows, columns, C)."""
        return self.vq.latents(batch.image).permute(0, 2, 3, 1)

    def paint(self, data: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """Return the images decoded from latents, with tokens replaced by predictions; see TokenKind.

        Args:
            data: The latents.
            index: Indices of the tokens (B, M).
            predicted: Predictions (B, M, n_targets).
        """
        return self.vq.drawn(super().paint(data, index, predicted).permute(0, 3, 1, 2))

    def positions(self, width: int) -> Tensor:
        """Return fixed positions float32 (N, width); raise ValueError if the width is not a multiple of 4."""
        return build_image_positions(self.grid, width, self.places)
