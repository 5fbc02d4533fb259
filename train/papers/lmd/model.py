"""The masked autoencoder of latents: LMD (Ma et al., 2023).

A frozen autoencoder encodes each image into a small grid of latents, and a masked autoencoder learns patches of it. The
frozen autoencoder is the quantiser of a finished run (nn/quantiser.py), without rounding.

Shapes: B samples, N tokens of p x p latents of C channels.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch, TokenGrid
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.train.core.model import Grids, need_mask
from maskstream.train.nn.grid import gather_tokens, put_tokens
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig, TokenKind
from maskstream.train.nn.media_tokens import ImagePositions, build_image_positions
from maskstream.train.nn.objectives import compute_joint_moments
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


class LatentTokens(nn.Module):
    """Cuts latents into (h w)-ordered patches, in (h w c) order within a patch; targets have mean 0 and variance 1."""

    def __init__(self, grid: TokenGrid, vq: FrozenQuantiser, places: ImagePositions = "rows") -> None:
        super().__init__()
        grid.need("h", "w", by="a model of latents")
        cell = vq.config.cell
        if any(side % cell for side in grid.patch):
            raise ValueError(
                f"the quantiser has cells of {cell} pixels, which do not divide patches of {grid.patch}; make "
                f"data.patch a multiple of {cell}"
            )
        self.vq, self.grid, self.places = vq, grid.shape, places
        self.sides = (grid.patch[0] // cell, grid.patch[1] // cell)
        self.n_tokens = grid.size
        self.n_inputs = self.n_targets = len(vq.config.levels) * self.sides[0] * self.sides[1]

    def media(self, batch: ImageBatch) -> Tensor:
        """Return the latents of a batch, float32 (B, rows, columns, C)."""
        return self.vq.latents(batch.image).permute(0, 2, 3, 1)

    def of(self, batch: ImageBatch) -> tuple[Tensor, MaskBatch]:
        """Return the latents of a batch, float32 (B, rows, columns, C), and its masks; raise ValueError if it has
        none.
        """
        return self.media(batch), need_mask(batch.mask)

    def completed(self, batch: ImageBatch, predicted: Tensor) -> ImageBatch:
        """Return the batch decoded from its latents, with target tokens replaced by predictions.

        Predictions are scaled by the true mean and standard deviation.

        Args:
            batch: The batch.
            predicted: Predictions (B, M, n_targets).
        """
        latents, mask = self.of(batch)
        tokens = self.split(latents)
        mean, deviation = compute_joint_moments(gather_tokens(tokens, mask.target))
        whole = put_tokens(tokens, mask.target, predicted.float() * deviation + mean)
        return replace(batch, image=self.vq.drawn(self._joined(whole)))

    def split(self, latents: Tensor) -> Tensor:
        """Split latents (B, rows, columns, C) into patches (B, N, n_inputs)."""
        (h, w), (ph, pw) = self.grid, self.sides
        return latents.reshape(len(latents), h, ph, w, pw, -1).transpose(2, 3).reshape(len(latents), h * w, -1)

    def inputs(self, tokens: Tensor) -> Tensor:
        """Return the latents unchanged, in [-1, 1]."""
        return tokens

    def targets(self, tokens: Tensor) -> Tensor:
        """Normalise patches (B, M, n_inputs) to mean 0 and variance 1 over all their latents, with the channels
        together.
        """
        mean, deviation = compute_joint_moments(tokens)
        return (tokens - mean) / deviation

    def positions(self, width: int) -> Tensor:
        """Return fixed positions float32 (N, width); raise ValueError if the width is not a multiple of 4."""
        return build_image_positions(self.grid, width, self.places)

    def _joined(self, tokens: Tensor) -> Tensor:
        """Join patches (B, N, n_inputs) to latents (B, C, rows, columns)."""
        (h, w), (ph, pw) = self.grid, self.sides
        rows = tokens.reshape(len(tokens), h, w, ph, pw, -1).transpose(2, 3)
        return rows.reshape(len(tokens), h * ph, w * pw, -1).permute(0, 3, 1, 2)
