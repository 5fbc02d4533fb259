"""The masks that every property is tested on (test_masks_properties.py). A new mask is a line here.

`SCHEMES`: each name of `MASKS` at its paper's grid. `PATTERNS`: what takes any law of the ratio, on any grid.
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
    Draw,
    DropAndMask,
    Dual,
    FilledStrips,
    Frames,
    Mask,
    MotionGuided,
    MultiBlock,
    PerFrame,
    Random,
    Ratio,
    Rounding,
    Shared,
    Strips,
    TokenGrid,
    Tube,
)
from maskstream.pipelines.place import Place

Count = Callable[[int], int]
"""How many of n tokens stay visible."""


def grid_of(*lengths: int, axes: str) -> TokenGrid:
    """A grid of `lengths` with the axes of a text such as "t h w"."""
    return TokenGrid(axes=tuple(axes.split()), shape=lengths, patch=(2,) * len(lengths))


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


def no_cues(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    return Cues()


def quarter_box(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    """The first half of the rows and of the columns."""
    return Cues(box=np.array([0.0, 0.0, 0.5, 0.5], dtype=np.float32))


def any_flow(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    frames = grid.shape[0] * grid.patch[0]
    return Cues(flow=rng.normal(0, 4, (frames - 1, 4, 4, 2)).astype(np.float32))


def draws_of(
    grid: TokenGrid,
    keys: list[str],
    cues: Callable[[TokenGrid, np.random.Generator], Cues] = no_cues,
    *,
    view: int = 0,
    seed: int = 0,
    epoch: int = 0,
    progress: float = 0.3,
    step: int = 7,
) -> list[Draw]:
    """Draws of samples as a loader makes them; what a sample shows and its row in the batch follow from its key."""
    rngs = [np.random.default_rng(list(key.encode())) for key in keys]
    places = [Place(step=step, row=int(rng.integers(8)), rows=8, progress=progress) for rng in rngs]
    return [
        Draw.of(seed, epoch, key, view, place, cues(grid, rng))
        for key, place, rng in zip(keys, places, rngs, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A name of `MASKS`. visible: tokens of each view that is drawn, None where they differ; target: None for the rest.

    view: the view that is drawn. alike: whether other views have the same mask. cues: what a sample shows.
    """

    name: str
    grid: TokenGrid
    visible: int | None
    target: int | None = None
    view: int = 0
    alike: bool = False
    cues: Callable[[TokenGrid, np.random.Generator], Cues] = no_cues


IMAGE = grid_of(14, 14, axes="h w")
CLIP = grid_of(8, 14, 14, axes="t h w")

SCHEMES = [
    Scheme(name="audio-mae", grid=grid_of(64, 8, axes="time freq"), visible=102),
    Scheme(name="audio-mae-strips", grid=grid_of(64, 8, axes="time freq"), visible=19 * 5),
    Scheme(name="avsiam-audio", grid=grid_of(8, 64, axes="freq time"), visible=None),
    Scheme(name="avsiam-image", grid=IMAGE, visible=None),
    Scheme(name="beit", grid=IMAGE, visible=196 - 75),
    Scheme(name="complementary", grid=IMAGE, visible=98),
    Scheme(name="cropmae", grid=IMAGE, visible=2, view=1),
    Scheme(name="diffmavil", grid=grid_of(4, 14, 14, axes="t h w"), visible=int(784 * 0.13)),
    Scheme(name="dmae", grid=IMAGE, visible=49, alike=True),
    Scheme(name="frames", grid=CLIP, visible=2 * 196),
    Scheme(name="lmd", grid=grid_of(7, 7, axes="h w"), visible=None),
    Scheme(name="mae", grid=IMAGE, visible=49),
    Scheme(name="mage", grid=grid_of(16, 16, axes="h w"), visible=128, target=-1),
    Scheme(name="maskgit", grid=grid_of(16, 16, axes="h w"), visible=None),
    Scheme(name="maskvit", grid=grid_of(16, 16, 16, axes="t h w"), visible=None),
    Scheme(name="motion-guided", grid=CLIP, visible=8 * 19, cues=any_flow),
    Scheme(name="oneref", grid=grid_of(24, 24, axes="h w"), visible=42 + 264, cues=quarter_box),
    Scheme(name="random", grid=CLIP, visible=156),
    Scheme(name="rgb-depth", grid=grid_of(2, 14, 14, axes="modality h w"), visible=2 * 49),
    Scheme(name="tube", grid=CLIP, visible=8 * 20),
    Scheme(name="v-jepa", grid=CLIP, visible=None),
    Scheme(name="videomae2", grid=CLIP, visible=160, target=784),
]


def lengths(axes: str, *least: int) -> st.SearchStrategy[TokenGrid]:
    """Grids with these axes, each at least as long as `least` says, 1 by default."""
    least = least or (1,) * len(axes.split())
    sizes = st.tuples(*(st.integers(low, low + 11) for low in least))
    return sizes.map(lambda shape: grid_of(*shape, axes=axes))


ANY = st.one_of(lengths("h w"), lengths("t h w"), lengths("time freq"), lengths("node"))


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A pattern that takes any law. build: of a law and a rounding. visible: how many tokens are, by its counts.

    counts: whether it takes laws of counts (UniformCount). uniform: whether every place is equally likely. dual: the
    targets are not the hidden tokens. roundings: those that it takes. smallest: its least grid.
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


def one_plane(grid: TokenGrid, count: Count) -> int:
    return count(grid.size)


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
        visible=one_plane,
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
        name="MotionGuided",
        build=lambda r, c: MotionGuided(ratio=r),
        grids=lengths("t h w"),
        visible=per_slice,
        counts=False,
        uniform=False,
        cues=any_flow,
        roundings=("floor_visible",),
    ),
]
