"""The masked autoencoder of latents: LMD (Ma et al., 2023).

A frozen autoencoder makes a small picture of latents of each picture, and a masked autoencoder learns patches of that.
The autoencoder is a quantiser of a finished run (nn/quantiser.py) whose latents are not rounded.

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
    """The sizes of an autoencoder of patches of latents, and what makes the latents.

    vq: the model.safetensors of a run that trained a quantiser (see FrozenQuantiser); quantiser: its sizes. The data's
    patch is p times the quantiser's cell. positions: see ImagePositions.
    """

    vq: str | None = "runs/vq-tiny/model.safetensors"
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    positions: ImagePositions = "rows"

    def validate(self) -> None:
        AutoencoderConfig.validate(self)
        self.need_choices(positions=ImagePositions)

    def tokens(self, grids: Grids) -> TokenKind[ImageBatch]:
        """Patches of latents on the grid "image". ValueError where the quantiser's cells do not divide them."""
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
        """The latents of a batch, float32 (B, rows, columns, C)."""
        return self.vq.latents(batch.image).permute(0, 2, 3, 1)

    def of(self, batch: ImageBatch) -> tuple[Tensor, MaskBatch]:
        """The latents of a batch, float32 (B, rows, columns, C), and its masks. ValueError where it has none."""
        return self.media(batch), need_mask(batch.mask)

    def completed(self, batch: ImageBatch, predicted: Tensor) -> ImageBatch:
        """The batch as it is drawn from its latents, with predictions (B, M, n_targets) of its targets in their place.

        They get the mean and deviation of the true ones.
        """
        latents, mask = self.of(batch)
        tokens = self.split(latents)
        mean, deviation = compute_joint_moments(gather_tokens(tokens, mask.target))
        whole = put_tokens(tokens, mask.target, predicted.float() * deviation + mean)
        return replace(batch, image=self.vq.drawn(self._joined(whole)))

    def split(self, latents: Tensor) -> Tensor:
        """Latents (B, rows, columns, C) as patches (B, N, n_inputs)."""
        (h, w), (ph, pw) = self.grid, self.sides
        return latents.reshape(len(latents), h, ph, w, pw, -1).transpose(2, 3).reshape(len(latents), h * w, -1)

    def inputs(self, tokens: Tensor) -> Tensor:
        """The latents as they are, in [-1, 1]."""
        return tokens

    def targets(self, tokens: Tensor) -> Tensor:
        """Patches (B, M, n_inputs) with mean 0 and variance 1 over all their latents, channels together."""
        mean, deviation = compute_joint_moments(tokens)
        return (tokens - mean) / deviation

    def positions(self, width: int) -> Tensor:
        """Fixed positions float32 (N, width). ValueError where 4 does not divide width."""
        return build_image_positions(self.grid, width, self.places)

    def _joined(self, tokens: Tensor) -> Tensor:
        """Patches (B, N, n_inputs) as latents (B, C, rows, columns)."""
        (h, w), (ph, pw) = self.grid, self.sides
        rows = tokens.reshape(len(tokens), h, w, ph, pw, -1).transpose(2, 3)
        return rows.reshape(len(tokens), h * ph, w * pw, -1).permute(0, 3, 1, 2)
