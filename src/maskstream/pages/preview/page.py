"""The preview page: clips with the mask over them, the flow as colours, and the tokens that stay visible over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from ...pipelines.modalities.video.batch import VideoBatch
from .clip_view import ClipView, clip_view
from .flow_colours import wheel
from .pictures import Grid, check_grid, data_uri

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


def environment(*packages: str) -> Environment:
    """The templates of this package and of `packages` before it; everything that is put into them is escaped."""
    loaders = [PackageLoader(package) for package in (*packages, __package__)]
    env = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {"count": count, "percent": percent, "span": span, "plural": plural}
    return env


def render(env: Environment, template: str, **context: Any) -> str:
    """The page `template` with the legend of the flow colours, which every page shares, added."""
    return env.get_template(template).render(wheel=data_uri(wheel(), lossless=True), **context)


def count(number: int) -> str:
    """1568 as `1,568`."""
    return f"{number:,}"


def percent(share: float) -> str:
    """0.9031 as `90.3 %`, with a space that does not break."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def span(numbers: Sequence[int]) -> str:
    """The numbers' extent in words: `19`, or `12 to 25`."""
    low, high = min(numbers), max(numbers)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def plural(number: int, noun: str) -> str:
    """`1 frame`, `16 frames`."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"
