"""The preview page: clips with the mask over them, the flow as colours, and the tokens that stay visible over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from ...pipelines.modalities.video.batch import VideoBatch
from ..figures.pictures import Grid, check_grid
from ..page import environment, render
from .clip_view import ClipView, clip_view

FULL_SIDE_PX = 224
FULL_SIDE_FRAMES = 128
MIN_SIDE_PX = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class GridWords:
    """The token grid as the sentences of a page need it."""

    steps: int
    rows: int
    columns: int
    patch: tuple[int, ...]

    @classmethod
    def of(cls, grid: Grid) -> GridWords:
        t, h, w = grid.shape
        return cls(steps=t, rows=h, columns=w, patch=tuple(grid.patch))

    @property
    def per_step(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return self.steps * self.per_step


def preview_page(
    batch: VideoBatch, grid: Grid, *, title: str, facts: Mapping[str, str], label_names: Sequence[str] = ()
) -> str:
    """One HTML file, complete in itself, that shows every clip of `batch` with its mask and its flow.

    `grid` is the token grid of the batch's mask; `facts` are shown as a table under the title, in their order;
    `label_names[batch.label[i]]` is shown as the label of clip i where there is such a name. The file refers to nothing
    outside itself: pictures are `data:` addresses, and it may load nothing (Content-Security-Policy). About 2 MB for
    128 frames; more frames are drawn smaller. Raises ValueError where `grid` does not cover the clips.
    """
    clips = clip_views(batch, grid, label_names=label_names)
    return render(environment(), "preview.html.j2", title=title, facts=facts, grid=GridWords.of(grid), clips=clips)


def clip_views(batch: VideoBatch, grid: Grid, *, label_names: Sequence[str] = (), frames: int = 0) -> list[ClipView]:
    """What the templates show of each clip. `frames` is the number of frames on the whole page (0: this batch's), which
    decides how large they are drawn."""
    _, length, height, width, _ = batch.video.shape
    check_grid(grid, length, height, width)
    side = picture_side(frames or len(batch) * length)
    return [clip_view(batch, i, grid, side, label_names) for i in range(len(batch))]


def picture_side(frames: int) -> float:
    """The longer side in pixels of the pictures of a page with so many frames: its area of pictures stays bounded."""
    return max(MIN_SIDE_PX, FULL_SIDE_PX * min(1.0, sqrt(FULL_SIDE_FRAMES / max(frames, 1))))
