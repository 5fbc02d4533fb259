"""The options for clips of video, with or without sound."""

from __future__ import annotations

from dataclasses import dataclass

from ..pipelines.masks import TokenGrid
from ..pipelines.modalities.video.clip import VideoClip
from ..trial import Trial, given, option

GRID = TokenGrid.video(16, 224, 224)
_PANEL = "Video, also with sound"


@dataclass(frozen=True, kw_only=True, slots=True)
class FramesTrial(Trial):
    """The options for the frames of a clip."""

    frames: int | None = option(
        "Frames per clip, an even number", default=VideoClip().frames, least=2, multiple=2, panel=_PANEL
    )
    stride: int | None = option(
        "Frames from one frame of a clip to the next", default=VideoClip().stride, least=1, panel=_PANEL
    )
    size: int | None = option(
        "Side of the frames in pixels, a multiple of 16", default=VideoClip().size, least=16, multiple=16, panel=_PANEL
    )

    def clip(self) -> VideoClip:
        """The chosen clip, with defaults for the rest."""
        return VideoClip(**given(frames=self.frames, stride=self.stride, size=self.size))
