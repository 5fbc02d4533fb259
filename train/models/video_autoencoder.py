"""The masked autoencoder of video: VideoMAE, MGMAE, VideoMAE V2."""

from __future__ import annotations

from dataclasses import dataclass

from ...pipelines.modalities.video.batch import VideoBatch
from ..core.model import Grids
from ..tokens.video import VideoTokens
from .masked_autoencoder import AutoencoderConfig, Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoAutoencoderConfig(AutoencoderConfig[VideoBatch]):
    """The sizes of a masked autoencoder of video cubes."""

    def tokens(self, grids: Grids) -> Tokens[VideoBatch]:
        """Cubes of video on the grid "video"."""
        return VideoTokens(grids["video"])
