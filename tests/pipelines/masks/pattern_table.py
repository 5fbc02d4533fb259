"""Patterns that take any schedule of the ratio, on any grid: rows of test_properties.py (see mask_table.py).

A new pattern is a line in `PATTERNS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import numpy as np
from hypothesis import strategies as st

from maskstream.pipelines.masks import (
    Block,
    Box,
    ByView,
    Complementary,
    Context,
    Cues,
    DropAndMask,
    Dual,
    FilledStrips,
    Frames,
    Joints,
    Mask,
    MeshNodes,
    MotionGuided,
    MultiBlock,
    PartDecoded,
    PerFrame,
    Random,
    Ratio,
    Rounding,
    Shared,
    Strips,
    TokenGrid,
    Tokens,
    TopScores,
    Tube,
    VoxelAware,
    WholeWords,
)

from .mask_table import a_fifth_occupied, any_flow, grid_of, no_cues, no_flow, quarter_box

Count = Callable[[int], int]
"""How many of n tokens stay visible."""


def count_of(ratio: float, rounding: Rounding) -> Count:
    """The counts of a ratio in decimal arithmetic, independent of ratio.py."""

    def visible(n: int) -> int:
        masked = Decimal(str(ratio)) * n
        if rounding == "floor_visible":
            return int((n - masked).to_integral_value(ROUND_FLOOR))
        if rounding == "nearest_masked":
            nearest = max(int(masked.to_integral_value(ROUND_HALF_EVEN)), 1)
            return n - min(nearest, n) if masked else n
        return n - int(masked.to_integral_value(ROUND_FLOOR if rounding == "floor_masked" else ROUND_CEILING))

    return visible


def lengths(axes: str, *least: int) -> st.SearchStrategy[TokenGrid]:
    """Grids with these axes, each at least as long as `least` says, 1 by default."""
    least = least or (1,) * len(axes.split())
    sizes = st.tuples(*(st.integers(low, low + 11) for low in least))
    return sizes.map(lambda shape: grid_of(*shape, axes=axes))


ANY = st.one_of(lengths("h w"), lengths("t h w"), lengths("time freq"), lengths("node"))


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A pattern that takes any schedule. build: of a schedule and a rounding. visible: number of visible tokens.

    counts: whether it takes schedules of counts (UniformCount). uniform: whether every place is equally likely. dual:
    the targets are not the hidden tokens. roundings: those that it takes. smallest: its least grid.
    """

    name: str
    build: Callable[[Ratio, Rounding], Mask]
    grids: st.SearchStrategy[TokenGrid]
    visible: Callable[[TokenGrid, Count], int]
    counts: bool = True
    uniform: bool = True
    dual: bool = False
    cues: Callable[[TokenGrid, np.random.Generator], Cues] = no_cues
    example: TokenGrid = field(default_factory=lambda: grid_of(2, 6, 6, axes="t h w"))
    smallest: TokenGrid = field(default_factory=lambda: grid_of(1, 1, 1, axes="t h w"))
    roundings: tuple[Rounding, ...] = ("floor_masked", "floor_visible", "ceil_masked", "nearest_masked")


def all_tokens(grid: TokenGrid, count: Count) -> int:
    return count(grid.size)


def per_slice(grid: TokenGrid, count: Count) -> int:
    return grid.shape[0] * count(grid.size // grid.shape[0])


def inside_and_outside(grid: TokenGrid, count: Count) -> int:
    """Of `quarter_box` without a margin."""
    inner = (grid.shape[0] // 2) * (grid.shape[1] // 2)
    return count(inner) + count(grid.size - inner)


PLANE = {"example": grid_of(6, 6, axes="h w"), "smallest": grid_of(1, 1, axes="h w")}
SPECTROGRAM = {"example": grid_of(8, 4, axes="time freq"), "smallest": grid_of(1, 1, axes="time freq")}

PATTERNS = [
    Pattern(name="Random", build=lambda r, c: Random(ratio=r, rounding=c), grids=ANY, visible=all_tokens),
    Pattern(name="Tube", build=lambda r, c: Tube(ratio=r, rounding=c), grids=lengths("t h w"), visible=per_slice),
    Pattern(
        name="Tube over modalities",
        build=lambda r, c: Tube(ratio=r, rounding=c, axis="modality"),
        grids=lengths("t modality h"),
        visible=lambda grid, count: grid.shape[1] * count(grid.shape[0] * grid.shape[2]),
        example=grid_of(5, 2, 4, axes="t modality h"),
        smallest=grid_of(1, 1, 1, axes="t modality h"),
    ),
    Pattern(
        name="Frames",
        build=lambda r, c: Frames(ratio=r, rounding=c),
        grids=lengths("t h w"),
        visible=lambda grid, count: count(grid.shape[0]) * grid.shape[1] * grid.shape[2],
        example=grid_of(12, 2, 2, axes="t h w"),
    ),
    Pattern(
        name="Frames along freq",
        build=lambda r, c: Frames(ratio=r, rounding=c, axis="freq"),
        grids=lengths("time freq"),
        visible=lambda grid, count: count(grid.shape[1]) * grid.shape[0],
        **SPECTROGRAM,
    ),
    Pattern(
        name="PerFrame", build=lambda r, c: PerFrame(ratio=r, rounding=c), grids=lengths("t h w"), visible=per_slice
    ),
    Pattern(
        name="Context",
        build=lambda r, c: Context(mask=PerFrame(ratio=r, rounding=c)),
        grids=lengths("t h w", 2, 1, 1),
        visible=lambda grid, count: (
            grid.size // grid.shape[0] + (grid.shape[0] - 1) * count(grid.size // grid.shape[0])
        ),
        uniform=False,
        smallest=grid_of(2, 1, 1, axes="t h w"),
    ),
    Pattern(
        name="Block",
        build=lambda r, c: Block(ratio=r, rounding=c, least=4),
        grids=lengths("h w"),
        visible=all_tokens,
        uniform=False,
        **PLANE,
    ),
    Pattern(
        name="Block of a clip",
        build=lambda r, c: Block(ratio=r, rounding=c),
        grids=lengths("t h w"),
        visible=per_slice,
        uniform=False,
    ),
    Pattern(
        name="MultiBlock",
        build=lambda r, c: MultiBlock(ratio=r, rounding=c),
        grids=lengths("t h w"),
        visible=per_slice,
        uniform=False,
    ),
    Pattern(
        name="MultiBlock of a part of the time",
        build=lambda r, c: MultiBlock(ratio=r, rounding=c, duration=(0.5, 0.5), scope="view"),
        grids=lengths("t h w", 2, 1, 1),
        visible=all_tokens,
        uniform=False,
        smallest=grid_of(2, 1, 1, axes="t h w"),
    ),
    Pattern(
        name="Strips",
        build=lambda r, c: Strips(time=r, freq=r, rounding=c),
        grids=st.one_of(lengths("time freq"), lengths("freq time")),
        visible=lambda grid, count: count(grid.shape[0]) * count(grid.shape[1]),
        **SPECTROGRAM,
    ),
    Pattern(
        name="FilledStrips",
        build=lambda r, c: FilledStrips(ratio=r, rounding=c),
        grids=st.one_of(lengths("time freq"), lengths("freq time")),
        visible=all_tokens,
        counts=False,
        **SPECTROGRAM,
    ),
    Pattern(
        name="FilledStrips of time",
        build=lambda r, c: FilledStrips(ratio=r, rounding=c, time=1.0, freq=0.0),
        grids=lengths("freq time"),
        visible=all_tokens,
        counts=False,
        **SPECTROGRAM,
    ),
    Pattern(
        name="Box",
        build=lambda r, c: Box(inside=r, outside=r, margin=0, rounding=c),
        grids=lengths("h w"),
        visible=inside_and_outside,
        uniform=False,
        cues=quarter_box,
        **PLANE,
    ),
    Pattern(
        name="ByView",
        build=lambda r, c: ByView(masks=(Random(ratio=r, rounding=c), None)),
        grids=ANY,
        visible=all_tokens,
    ),
    Pattern(
        name="Shared",
        build=lambda r, c: Shared(mask=Tube(ratio=r, rounding=c)),
        grids=lengths("t h"),
        visible=per_slice,
    ),
    Pattern(
        name="Complementary",
        build=lambda r, c: Complementary(mask=Random(ratio=r, rounding=c)),
        grids=ANY,
        visible=all_tokens,
    ),
    Pattern(
        name="DropAndMask",
        build=lambda r, c: DropAndMask(ratio=r, rounding=c, drop=0.0),
        grids=ANY,
        visible=lambda grid, count: grid.size,
        dual=True,
        uniform=False,
    ),
    Pattern(
        name="Dual",
        build=lambda r, c: Dual(encoder=Random(ratio=r, rounding=c), decoder=Random(ratio=0.5)),
        grids=ANY,
        visible=all_tokens,
        dual=True,
    ),
    Pattern(
        name="PartDecoded",
        build=lambda r, c: PartDecoded(mask=Random(ratio=r, rounding=c)),
        grids=ANY,
        visible=all_tokens,
        dual=True,
    ),
    Pattern(
        name="MotionGuided",
        build=lambda r, c: MotionGuided(ratio=r),
        grids=lengths("t h w"),
        visible=per_slice,
        counts=False,
        uniform=False,
        cues=any_flow,
        roundings=("floor_visible",),
    ),
    Pattern(
        name="MotionGuided of a still clip",
        build=lambda r, c: MotionGuided(ratio=r, start="token"),
        grids=lengths("t h w"),
        visible=per_slice,
        counts=False,
        cues=no_flow,
        roundings=("floor_visible",),
    ),
    Pattern(
        name="MotionGuided per clip",
        build=lambda r, c: MotionGuided(ratio=r, per="clip"),
        grids=lengths("t h w"),
        visible=per_slice,
        counts=False,
        uniform=False,
        cues=any_flow,
        roundings=("floor_visible",),
    ),
    Pattern(
        name="MeshNodes",
        build=lambda r, c: MeshNodes(ratio=r, rounding=c),
        grids=lengths("node"),
        visible=all_tokens,
        example=grid_of(40, axes="node"),
        smallest=grid_of(1, axes="node"),
    ),
    Pattern(
        name="TopScores",
        build=lambda r, c: TopScores(ratio=r, rounding=c),
        grids=ANY,
        visible=all_tokens,
        cues=lambda grid, rng: Cues(scores=rng.random(grid.size, dtype=np.float32)),
    ),
    Pattern(
        name="VoxelAware",
        build=lambda r, c: VoxelAware(foreground=r, background=r),
        grids=lengths("x y z"),
        visible=lambda grid, count: (
            max(count(grid.size // 5), min(grid.size // 5, 1)) + count(grid.size - grid.size // 5)
        ),
        uniform=False,
        cues=a_fifth_occupied,
        example=grid_of(4, 4, 4, axes="x y z"),
        smallest=grid_of(1, 1, 1, axes="x y z"),
        roundings=("floor_masked",),
    ),
    Pattern(
        name="Joints",
        build=lambda r, c: Joints(frames=r, joints=0),
        grids=lengths("frame joint"),
        visible=lambda grid, count: count(grid.shape[0]) * grid.shape[1],
        example=grid_of(12, 3, axes="frame joint"),
        smallest=grid_of(1, 1, axes="frame joint"),
        roundings=("floor_masked",),
    ),
    *(
        Pattern(
            name=kind.__name__,
            build=lambda r, c, kind=kind: kind(ratio=r, rounding=c),
            grids=lengths("token"),
            visible=all_tokens,
            cues=lambda grid, rng: Cues(words=np.arange(grid.size)),
            example=grid_of(40, axes="token"),
            smallest=grid_of(1, axes="token"),
        )
        for kind in (Tokens, WholeWords)
    ),
]
