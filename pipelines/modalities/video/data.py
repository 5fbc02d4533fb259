"""What decides a batch of clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Unpack

from ....shards.config import NOT_IDENTITY
from ...augment import Augmentation
from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ..data import DataConfig, check_views
from ..split import Options
from .batch import VideoBatch
from .clip import VideoClip


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoData(DataConfig[VideoBatch]):
    """Masked clips; the fields are the settings of `video_loader`."""

    modality: ClassVar[str] = "video"

    clip: VideoClip = field(default_factory=VideoClip)
    mask: Mask | None = None
    augment: Augmentation | None = None
    flow: Literal["auto", "codec", "dis", "none"] = "auto"
    views: int = 1
    component: str | None = None
    tubelet: int = 2
    patch: int = 16
    backend: Literal["auto", "cpu", "dali"] = field(default="auto", metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        check_views(self.views)
        _ = self.grids

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """That of "video", on the axes (t, h, w)."""
        size = self.clip.size
        return {"video": TokenGrid.video(self.clip.frames, size, size, tubelet=self.tubelet, patch=self.patch)}

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[VideoBatch]:
        """A loader of the clips of a split."""
        from .loader import video_loader

        return video_loader(
            location,
            clip=self.clip,
            mask=self.mask,
            augment=self.augment,
            flow=self.flow,
            views=self.views,
            component=self.component,
            tubelet=self.tubelet,
            patch=self.patch,
            backend=self.backend,
            **options,
        )
