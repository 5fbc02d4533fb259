"""The masks that every property is tested on, in test_properties.py. A new mask is a line here, or is
drawn on its own grid with made-up cues.

`SCHEMES` is each name of `MASKS` at its paper's grid; pattern_table.py has what takes any schedule, on any grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines import masks
from maskstream.pipelines.masks import Cues, Draw, TokenGrid
from maskstream.pipelines.masks.core.scheme import made_up_cues
from maskstream.pipelines.stream.rng import Place

from .texts import text


def grid_of(*lengths: int, axes: str) -> TokenGrid:
    """A grid of `lengths` with the axes of a text such as "t h w"."""
    return TokenGrid(axes=tuple(axes.split()), shape=lengths, patch=(2,) * len(lengths))


def no_cues(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    return Cues()


def quarter_box(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    """The first half of the rows and of the columns."""
    return Cues(box=np.array([0.0, 0.0, 0.5, 0.5], dtype=np.float32))


def any_flow(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    frames = grid.shape[0] * grid.patch[0]
    return Cues(flow=rng.normal(0, 4, (frames - 1, 4, 4, 2)).astype(np.float32))


def no_flow(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    return Cues(flow=np.zeros((grid.shape[0] * grid.patch[0] - 1, 4, 4, 2), dtype=np.float32))


def noisy_frames(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    return made_up_cues(frozenset({"frames", "flow", "cuts"}), grid, rng)


def a_text(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    return text(grid.size, rng, padding=int(rng.integers(grid.size // 2)))


def a_fifth_occupied(grid: TokenGrid, rng: np.random.Generator) -> Cues:
    return Cues(occupied=rng.permutation(grid.size) < grid.size // 5)


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
    """A name of `MASKS`. visible: tokens of each view that is drawn, None where they differ; target: None for the rest,
    -1 for others.

    view: the view that is drawn. alike: whether other views have the same mask, fixed: whether other epochs and seeds
    have it too. few: whether there are so few masks that two keys may share one. cues: what a sample shows.
    """

    name: str
    grid: TokenGrid
    visible: int | None
    target: int | None = None
    view: int = 0
    alike: bool = False
    fixed: bool = False
    few: bool = False
    cues: Callable[[TokenGrid, np.random.Generator], Cues] = no_cues


IMAGE = grid_of(14, 14, axes="h w")
CLIP = grid_of(8, 14, 14, axes="t h w")
TEXT = grid_of(128, axes="token")

SCHEMES = [
    Scheme(name="a-jepa", grid=grid_of(64, 8, axes="time freq"), visible=None, target=-1),
    Scheme(name="audio-mae", grid=grid_of(64, 8, axes="time freq"), visible=102),
    Scheme(name="audio-mae-strips", grid=grid_of(64, 8, axes="time freq"), visible=19 * 5),
    Scheme(name="avsiam-audio", grid=grid_of(8, 64, axes="freq time"), visible=None),
    Scheme(name="avsiam-image", grid=IMAGE, visible=None),
    Scheme(name="beit", grid=IMAGE, visible=196 - 75),
    Scheme(name="by-energy", grid=CLIP, visible=392, fixed=True, cues=noisy_frames),
    Scheme(name="complementary", grid=IMAGE, visible=98),
    Scheme(name="cropmae", grid=IMAGE, visible=2, view=1),
    Scheme(name="diffmavil", grid=grid_of(4, 14, 14, axes="t h w"), visible=int(784 * 0.13)),
    Scheme(name="dmae", grid=IMAGE, visible=49, alike=True),
    Scheme(name="fastdit-3d", grid=grid_of(8, 8, 8, axes="x y z"), visible=6 + 5, cues=a_fifth_occupied),
    Scheme(name="frames", grid=CLIP, visible=2 * 196, few=True),
    Scheme(name="i-jepa", grid=IMAGE, visible=None, target=-1),
    Scheme(name="lmd", grid=grid_of(7, 7, axes="h w"), visible=None),
    Scheme(name="m3ae-image", grid=grid_of(18, 18, axes="h w"), visible=81),
    Scheme(name="m3ae-text", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="mae", grid=IMAGE, visible=49),
    Scheme(name="mage", grid=grid_of(16, 16, axes="h w"), visible=128, target=-1),
    Scheme(name="maskgit", grid=grid_of(16, 16, axes="h w"), visible=None),
    Scheme(name="maskvit", grid=grid_of(16, 16, 16, axes="t h w"), visible=None),
    Scheme(name="mdlm", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="mesh-mask", grid=grid_of(1885, axes="node"), visible=1131),
    Scheme(name="mosaicbert", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="motion-guided", grid=CLIP, visible=8 * 19, cues=any_flow),
    Scheme(name="mpm", grid=grid_of(243, 16, axes="frame joint"), visible=98 * 11),
    Scheme(name="mpm-limbs", grid=grid_of(243, 17, axes="frame joint"), visible=243 * 14, few=True),
    Scheme(name="mrd", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="oneref", grid=grid_of(24, 24, axes="h w"), visible=42 + 264, cues=quarter_box),
    Scheme(name="oneref-text", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="pmlm", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="ptw", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="random", grid=CLIP, visible=156),
    Scheme(name="retromae", grid=TEXT, visible=None, cues=a_text),
    Scheme(name="rgb-depth", grid=grid_of(2, 14, 14, axes="modality h w"), visible=2 * 49),
    Scheme(name="roar", grid=TEXT, visible=None, cues=a_text, alike=True, fixed=True),
    Scheme(name="tube", grid=CLIP, visible=8 * 20),
    Scheme(name="v-jepa", grid=CLIP, visible=None),
    Scheme(name="videomae2", grid=CLIP, visible=160, target=784),
]

SCHEMES += [
    Scheme(
        name=one.name,
        grid=one.grid,
        visible=one.visible,
        cues=lambda grid, rng, needs=one.mask.needs: made_up_cues(needs, grid, rng),
    )
    for one in masks.SCHEMES
    if one.name and one.name not in {scheme.name for scheme in SCHEMES}
]
