"""The masked autoencoder of video: VideoMAE, MGMAE, VideoMAE V2, MAE-ST."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.train.core.model import Grids

from .masked_autoencoder import AutoencoderConfig, TokenKind
from .video_tokens import Positions, VideoTargets, VideoTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoAutoencoderConfig(AutoencoderConfig[VideoBatch]):
    """The sizes of a masked autoencoder of video cubes.

    target: what the decoder predicts, "normalised" cubes as in VideoMAE, "pixels", or a "frame" as in MAE-ST.
    positions: where a token stands, on a "line" through all tokens as in VideoMAE, or on the axes of a "grid" (see
    tokens/video.py); of no use if they are `learnt`.
    """

    target: VideoTargets = "normalised"
    positions: Positions = "line"

    def __post_init__(self) -> None:
        AutoencoderConfig.__post_init__(self)
        for name, legal in (("target", get_args(VideoTargets)), ("positions", get_args(Positions))):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} is one of {', '.join(legal)}, got {getattr(self, name)!r}")

    def tokens(self, grids: Grids) -> TokenKind[VideoBatch]:
        """Cubes of video on the grid "video"."""
        return VideoTokens(grids["video"], self.target, self.positions)
