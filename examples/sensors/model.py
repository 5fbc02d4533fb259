"""A masked autoencoder of recordings, and its recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch, Random, TokenGrid
from maskstream.train.core.model import Grids
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.grid import axis_sinusoids, put_tokens
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig, TokenKind

from .data import SensorBatch, SensorData


class SensorTokens(nn.Module):
    """Cuts recordings into pieces of one sensor each; targets are the values themselves."""

    def __init__(self, grid: TokenGrid) -> None:
        super().__init__()
        self.grid, self.n_tokens = grid.shape, grid.size
        self.n_inputs = self.n_targets = self.patch = grid.patch[0]

    def of(self, batch: SensorBatch) -> tuple[Tensor, MaskBatch]:
        """The values and the masks of a batch."""
        if batch.mask is None:
            raise ValueError("the batch has no mask; give the loader one, such as mask=masks.Random(ratio=0.75)")
        return batch.values, batch.mask

    def split(self, data: Tensor) -> Tensor:
        """Pieces float32 (B, N, patch) of values (B, T, C)."""
        pieces = data.reshape(len(data), self.grid[0], self.patch, self.grid[1]).transpose(2, 3)
        return pieces.reshape(len(data), self.n_tokens, self.patch)

    def inputs(self, tokens: Tensor) -> Tensor:
        """The pieces."""
        return tokens

    def targets(self, tokens: Tensor) -> Tensor:
        """The pieces."""
        return tokens

    def completed(self, batch: SensorBatch, predicted: Tensor) -> SensorBatch:
        """The batch with its hidden pieces replaced by the predictions."""
        values, mask = self.of(batch)
        pieces = put_tokens(self.split(values), mask.target, predicted.float())
        pieces = pieces.reshape(len(values), *self.grid, self.patch).transpose(2, 3)
        return replace(batch, values=pieces.reshape(values.shape))

    def positions(self, width: int) -> Tensor:
        """The sinusoid of the time, then that of the sensor, float32 (N, width)."""
        return axis_sinusoids(self.grid, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorAutoencoderConfig(AutoencoderConfig[SensorBatch]):
    """The sizes of a masked autoencoder of recordings."""

    def tokens(self, grids: Grids) -> TokenKind[SensorBatch]:
        """Pieces on the grid "sensors"."""
        return SensorTokens(grids["sensors"])


def sensors_tiny() -> Recipe[SensorBatch]:
    """A tiny one: 75 % of the pieces are hidden."""
    return Recipe(
        name="sensors-tiny",
        batch_size=8,
        data=SensorData(mask=Random(ratio=0.75)),
        model=SensorAutoencoderConfig(width=32, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2),
        optimiser=OptimiserConfig(),
        schedule=ScheduleConfig(base_lr=0.05, steps=200),
    )
