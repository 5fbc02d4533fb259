"""Masks by slice: the same random tokens in every slice of an axis, different ones in each, or whole slices."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core import (
    CLIP,
    Draw,
    Maps,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    TokenGrid,
    as_schedule,
)
from maskstream.pipelines.masks.schedules.random import Uniform
from maskstream.shards.arrays import Bools, Int64s
from maskstream.shards.limits import PositiveInt

from .padded import Padded
from .random import draw_random_tokens


def repeated(plane: Bools, grid: TokenGrid, axis: str) -> Bools:
    """Repeat the map of one slice, bool (size of a slice,), in every slice across `axis`: bool (N,)."""
    return split_into_slices(np.broadcast_to(plane, (grid.shape[grid.axes.index(axis)], len(plane))), grid, axis)


def split_into_slices(maps: Bools, grid: TokenGrid, axis: str) -> Bools:
    """Arrange the maps of all slices across `axis`, bool (slices, size of a slice or 1), as a map of the grid, bool
    (N,).
    """
    place = grid.axes.index(axis)
    if maps.shape[1] == 1:
        maps = np.broadcast_to(maps, (len(maps), grid.size // len(maps)))
    if place == 0:
        return maps.reshape(-1)
    return np.moveaxis(maps.reshape(len(maps), *grid.shape[:place], *grid.shape[place + 1 :]), 0, place).reshape(-1)


def draw_orders(rows: int, n: int, rng: np.random.Generator) -> Int64s:
    """Draw `rows` random permutations of 0 ... n-1: int64 (rows, n).

    Sorts random keys that hold the number in their lowest bits, which is several times faster than shuffling row by
    row. At least 22 bits of a key are random; ties are ordered by number.
    """
    kind: Any = np.uint64 if n > 1024 else np.uint32
    bits = 64 if n > 1024 else 32
    low = (1 << max(n - 1, 1).bit_length()) - 1
    keys: npt.NDArray[Any] = rng.integers((1 << bits) - 1, dtype=kind, size=(rows, n), endpoint=True)
    keys &= kind((1 << bits) - 1 - low)
    keys |= np.arange(n, dtype=kind)
    keys.sort(axis=1)
    orders: Int64s = (keys & kind(low)).astype(np.int64)
    return orders


@dataclass(frozen=True, kw_only=True, slots=True)
class Tube(Mask):
    """Hide the same random tokens in all slices across `axis`, by default in all time steps.

    At ratio 0.9 on 8 x 14 x 14 tokens, 20 of each slice's 196 are visible, 160 in all. Any grid that has `axis`. With
    axis="modality" on a stack of images (RGB and depth), it hides the same positions in each image. Source: VideoMAE
    (Tong et al. 2022, sec. 3.3).

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        axis: Axis along which the map is repeated.
    """

    ratio: Ratio = 0.9
    rounding: Rounding = "floor_masked"
    axis: str = "t"

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        plane = grid.across(self.axis, by="Tube")
        visible = as_schedule(self.ratio).visible(plane, draw, self.rounding)
        return repeated(draw_random_tokens(plane, visible, draw.rng), grid, self.axis)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames(Mask):
    """Hide random whole slices across `axis`, by default whole time steps.

    At ratio 0.75 on 8 x 14 x 14 tokens, 2 of 8 time steps are visible, 392 tokens. Any grid that has `axis`; along
    "time" of a spectrogram it hides columns, along "freq" rows. Source: MAE-ST (Feichtenhofer et al. 2022), time-only
    sampling.

    Attributes:
        ratio: Fraction of hidden slices, or a ratio schedule.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        axis: Axis whose slices are hidden.
    """

    ratio: Ratio = 0.75
    rounding: Rounding = "floor_visible"
    axis: str = "t"

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        slices = grid.shape[grid.need_axis(self.axis, by="Frames")]
        visible = as_schedule(self.ratio).visible(slices, draw, self.rounding)
        return split_into_slices(draw_random_tokens(slices, visible, draw.rng)[:, None], grid, self.axis)


@dataclass(frozen=True, kw_only=True, slots=True)
class PerFrame(Mask):
    """Hide random tokens in each slice across `axis`, drawn independently, with an exact count per slice.

    At ratio 0.9 on 8 x 14 x 14 tokens, 19 of each slice's 196 are visible, 152 in all. Any grid that has `axis`.
    Source: MaskViT (Gupta et al. 2022), tokens of frames; see `Context`.

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule; with scope "frame", each slice has its own ratio.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        axis: Axis whose slices are masked independently.
    """

    ratio: Ratio = 0.9
    rounding: Rounding = "floor_visible"
    axis: str = "t"

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        plane = grid.across(self.axis, by="PerFrame")
        visible = as_schedule(self.ratio).visible_per_frame(grid.size // plane, plane, draw, self.rounding)
        orders = draw_orders(len(visible), plane, draw.rng)
        return split_into_slices(orders >= np.array(visible)[:, None], grid, self.axis)


@dataclass(frozen=True, kw_only=True, slots=True)
class Context(Mask):
    """Keep the first time steps visible and mask the rest as a separate clip.

    The grid's first axis is t, with more than `frames` steps. Source: MaskViT (Gupta et al. 2022), which predicts the
    frames after 1 or 2 context frames with a ratio from [0.5, 1): Context(frames=1,
    mask=PerFrame(ratio=Uniform(low=0.5, high=1.0))).

    Attributes:
        mask: Mask of the later time steps.
        frames: Number of visible time steps at the start.
    """

    mask: Mask = field(default_factory=PerFrame)
    frames: PositiveInt = 1

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        return self.maps(grid, draw).hidden

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        if grid.axes[0] != "t" or grid.shape[0] <= self.frames:
            raise ValueError(
                f"Context needs a grid whose first axis is t, with more than {self.frames} context frames, "
                f"got axes {grid.axes} with {grid.shape} tokens"
            )
        rest = later(grid, self.frames)
        seen = np.zeros(grid.size - rest.size, dtype=np.bool_)
        maps = self.mask.maps(rest, draw)
        return Maps(
            hidden=np.concatenate([seen, maps.hidden]),
            target=None if maps.target is None else np.concatenate([seen, maps.target]),
            mask_token=None if maps.mask_token is None else np.concatenate([seen, maps.mask_token]),
        )


@lru_cache(maxsize=64)
def later(grid: TokenGrid, frames: int) -> TokenGrid:
    """Return the grid without its first `frames` slices."""
    return replace(grid, shape=(grid.shape[0] - frames, *grid.shape[1:]))


SCHEMES = (
    Scheme(
        name="tube",
        paper="VideoMAE",
        section="sec. 3.3",
        mask=Tube(ratio=0.9),
        grid=CLIP,
        visible=160,
        title="Tube",
        note=(
            "One spatial map for the whole clip, so nothing can be copied from another frame: 176 of 196 tokens "
            "per time step are hidden."
        ),
    ),
    Scheme(
        name="rgb-depth",
        paper="RGB and depth",
        mask=Tube(ratio=0.75, axis="modality"),
        grid=TokenGrid(axes=("modality", "h", "w"), shape=(2, 14, 14), patch=(1, 16, 16)),
        visible=98,
        title="One mask for all modalities",
        note="The same positions are hidden in all images of a stack, such as RGB and depth.",
    ),
    Scheme(
        name="frames",
        paper="MAE-ST",
        section="time-only sampling",
        mask=Frames(ratio=0.75, axis="t"),
        grid=CLIP,
        visible=392,
        title="Frames",
        note="Whole time steps are hidden, 6 of 8.",
    ),
    Scheme(
        name="maskvit",
        paper="MaskViT",
        section="sec. 3.3",
        mask=Padded(mask=Context(mask=PerFrame(ratio=Uniform(low=0.5, high=1.0)))),
        grid=CLIP,
        title="Context and variable ratio",
        note=(
            "The first step stays visible as context; each other step hides a fraction drawn from [0.5, 1). "
            "Interval and context are not in published code."
        ),
    ),
)
