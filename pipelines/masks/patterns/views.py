"""Masks for several views of a sample: one per view, one for all views, or complementary halves."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np

from maskstream.pipelines.masks.core import PICTURE, Draw, Maps, Mask, RatioSchedule, Scheme, Shot, TokenGrid
from maskstream.shards.arrays import Bools
from maskstream.shards.limits import FILLED

from .padded import Padded
from .random import Random

OF_ONE_VIEW = frozenset({"frames", "depth", "waveform", "spectrogram", "flow", "box", "occupied"})
"""Mask inputs that differ between views, so a mask shared by several views cannot use them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByView(Mask):
    """Mask view v of a sample with masks[v % len(masks)].

    If the masks hide different numbers of tokens, use `Padded`. CropMAE (Eymael et al. 2024) masks only the second of
    two crops: ByView(masks=(None, Random(ratio=0.985))), 2 of 196 tokens visible. V-JEPA (Bardes et al. 2024) has two
    masks per clip: ByView(masks=(MultiBlock(), MultiBlock(blocks=2, scale=(0.7, 0.7)))).

    Attributes:
        masks: Masks in order of views; None hides nothing.
    """

    masks: Annotated[tuple[Mask | None, ...], FILLED] = field(default_factory=lambda: (None, Random(ratio=0.985)))

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        mask = self.masks[draw.view % len(self.masks)]
        return Maps(hidden=np.zeros(grid.size, dtype=np.bool_)) if mask is None else mask.maps(grid, draw)

    def _parts(self) -> Iterator[Mask | RatioSchedule]:
        return (mask for mask in self.masks if mask is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared(Mask):
    """Use one mask for all views of a sample.

    Teacher and student, which receive one view each, see the same tokens: DMAE (Bai et al. 2022, masked autoencoders as
    distillers), Shared(mask=Random(ratio=0.75)).

    Attributes:
        mask: Mask to draw; it must not read inputs of a single view.
    """

    mask: Mask = field(default_factory=lambda: Random(ratio=0.75))

    def validate(self) -> None:
        check_for_all_views(self.mask, "Shared")

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.mask.hide(grid, draw_for_all_views(draw, f"shared {type(self.mask).__name__}"))

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        return self.mask.maps(grid, draw_for_all_views(draw, f"shared {type(self.mask).__name__}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Complementary(Mask):
    """Give views 2k and 2k + 1 of a sample complementary tokens; view 2k sees the tokens that `mask` leaves visible.

    At ratio 0.5 and an even number of tokens, both views have equal counts; at other ratios use `Padded`. Each pair of
    views has its own mask.

    Attributes:
        mask: Mask to draw; it must not read inputs of a single view.
    """

    mask: Mask = field(default_factory=lambda: Random(ratio=0.5))

    def validate(self) -> None:
        check_for_all_views(self.mask, "Complementary")

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        hidden = self.mask.hide(grid, draw_for_all_views(draw, f"pair {draw.view // 2}"))
        return ~hidden if draw.view % 2 else hidden


def draw_for_all_views(draw: Draw, purpose: str) -> Draw:
    """Return the draw of the first view, with the generator that all views of the sample share for `purpose`."""
    return replace(draw, rng=draw.generator("sample", f"{purpose} {draw.part}".strip()), view=0)


def check_for_all_views(mask: Mask, by: str) -> None:
    """Raise ValueError if `mask` reads an input that differs between views."""
    single = mask.needs & OF_ONE_VIEW
    if single:
        raise ValueError(
            f"{by} draws one mask for several views, and {type(mask).__name__} reads {', '.join(sorted(single))}, "
            "which differs from view to view; use a mask that does not read it"
        )


SCHEMES = (
    Scheme(
        name="cropmae",
        paper="CropMAE",
        mask=Padded(mask=ByView(masks=(None, Random(ratio=0.985)))),
        grid=PICTURE,
        title="Second view only",
        note="Two views: a crop, fully visible, and a crop of this crop with two visible patches.",
        shots=(Shot(caption="view 1, the whole"), Shot(caption="view 2, a part of it", view=1)),
        scene="crops",
    ),
    Scheme(
        name="dmae",
        paper="DMAE",
        mask=Shared(mask=Random(ratio=0.75)),
        grid=PICTURE,
        visible=49,
        title="One mask for two models",
        note="Teacher and student see the same patches. At a ratio of 0.95, 9 patches stay visible; at 0.98, 3.",
        shots=(Shot(caption="view 1, the teacher's"), Shot(caption="view 2, the student's", view=1)),
    ),
    Scheme(
        name="complementary",
        paper="pairs of views",
        mask=Complementary(mask=Random(ratio=0.5)),
        grid=PICTURE,
        visible=98,
        title="Complementary",
        note="Each view shows the tokens that the other hides.",
        shots=(Shot(caption="view 1"), Shot(caption="view 2", view=1)),
    ),
)
