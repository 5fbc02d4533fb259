"""A masked autoencoder of recordings, and its recipe."""

from dataclasses import dataclass

from maskstream.pipelines.masks import Random
from maskstream.train.core.model import Grids
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig
from maskstream.train.nn.media_tokens import TokenKind

from .data import SensorBatch, SensorData


class SensorTokens(TokenKind[SensorBatch]):
    """Cuts recordings into pieces of one sensor each; a piece is predicted relative to its mean and deviation."""

    medium = "values"


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
