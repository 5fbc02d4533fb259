"""Motion-guided: the visible tokens follow the motion of the content from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..core.base import Mask
from ..core.draw import Draw
from ..core.grid import TokenGrid
from ..core.ratio import RatioAlone, as_ratio_law, visible_count
from ..core.scheme import CLIP, Scheme

Floats = npt.NDArray[np.float32]
Start = Literal["mix_gauss", "pixel", "token"]
Base = Literal["middle", "first", "random"]
Per = Literal["slice", "clip"]
Fill = Literal["base", "none"]

FAINT = np.float32(1e-8)
"""The least value of a start map. After a warp only cells from outside the frame are exactly 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionGuided(Mask):
    """A random map of the base frame is warped along the flow to the other frames; the highest tokens are visible.

    At ratio 0.9 on 8 x 14 x 14 tokens 19 of each slice's 196 stay visible, 152 in all. The grid's axes are (t, h, w),
    and the flow is backward flow between the t * patch[0] frames. Source: MGMAE (Huang et al. 2023).

    start: "mix_gauss", Gaussian bumps as wide as a patch on random patches; "pixel", random map cells; "token", random
        patches.
    base: the frame of the random map; "random" draws it for each view.
    per: the highest tokens of each "slice" of time, or of the whole "clip" (published as topk_on_all).
    fill: cells from outside the frame take the values of the random map with "base" (published as consist), or stay at
        0 with "none", which hides them.
    cells: map cells along a patch's side; 16 is the paper's resolution for patches of 16 pixels.
    exposure: the standard deviation of the noise on the scores (sums over a token's pixels) of one random slice;
        published as exposure_chance, with 1.0.
    compat: before the base frame the flow is not inverted, as in the published code, so that the visible tokens move
        against the content there.
    """

    ratio: RatioAlone = 0.9
    start: Start = "mix_gauss"
    base: Base = "middle"
    per: Per = "slice"
    fill: Fill = "base"
    cells: int = 4
    exposure: float = 0.0
    compat: bool = False

    def __post_init__(self) -> None:
        as_ratio_law(self.ratio, by="MotionGuided")
        legal: dict[str, Any] = {"start": Start, "base": Base, "per": Per, "fill": Fill}
        for name, choices in legal.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}")
        if self.cells < 1:
            raise ValueError(f"cells is at least 1 map cell along a patch's side, got {self.cells}")
        if self.exposure < 0:
            raise ValueError(f"exposure is a standard deviation, 0 or more, got {self.exposure}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"flow"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        t, h, w = grid.need("t", "h", "w", by="MotionGuided")
        tubelet, patch_h, patch_w = grid.patch
        frames = t * tubelet
        flow, rng = draw.cues.need("flow", by="MotionGuided"), draw.rng
        if flow.ndim != 4 or len(flow) != frames - 1 or flow.shape[-1] != 2:
            raise ValueError(
                f"a grid of {frames} frames needs the flow between them, ({frames - 1}, h, w, 2), got {flow.shape}"
            )
        maps, warp = kernels()
        ratio = as_ratio_law(self.ratio, by="MotionGuided").draw(draw)
        start = start_map(self.start, (h, w), self.cells, ratio, rng)
        base = {"middle": frames // 2, "first": 0}.get(self.base)
        seen = warp.carry(
            start,
            flow,
            int(rng.integers(frames)) if base is None else base,
            cell=(patch_w / self.cells, patch_h / self.cells),
            fill=self.fill == "base",
            compat=self.compat,
        )
        scores = maps.token_sums(seen, tubelet, self.cells)
        if self.exposure:
            scores *= patch_h * patch_w / self.cells**2  # to sums over pixels
            scores[rng.integers(t)] += rng.normal(0.0, self.exposure, h * w)
        visible = visible_count(h * w, ratio, "floor_visible")
        if self.per == "clip":
            scores, visible = scores.reshape(1, -1), visible * t
        hidden: npt.NDArray[np.bool_] = maps.all_but_highest(scores, visible, rng.permutation(scores.shape[1]))
        return hidden.reshape(-1)


@cache
def kernels() -> tuple[ModuleType, ModuleType]:
    """The modules of compiled kernels, imported at the first use, since compiling takes time."""
    from . import maps, warp

    return maps, warp


def start_map(start: Start, plane: tuple[int, int], cells: int, ratio: float, rng: np.random.Generator) -> Floats:
    """The base frame's map over h x w patches of cells x cells each: float32 (h * cells, w * cells) in (0, 1]."""
    h, w = plane
    if start == "pixel":
        size = h * w * cells * cells
        flat = np.full(size, FAINT, dtype=np.float32)
        flat[rng.permutation(size)[: visible_count(size, ratio, "floor_visible")]] = 1.0
        return flat.reshape(h * cells, w * cells)
    chosen = rng.permutation(h * w)[: max(visible_count(h * w, ratio, "floor_masked"), 1)]
    if start == "token":
        tokens = np.full(h * w, FAINT, dtype=np.float32)
        tokens[chosen] = 1.0
        return tokens.reshape(h, w).repeat(cells, axis=0).repeat(cells, axis=1)
    mixed: Floats = kernels()[0].highest_bump(bumps(h, cells), bumps(w, cells), chosen, FAINT)
    return mixed


@lru_cache(maxsize=32)
def bumps(patches: int, cells: int) -> Floats:
    """exp(-d^2) along one axis, d from a patch's centre to a cell's, in patches: (patches, patches * cells)."""
    places = (np.arange(patches * cells) + 0.5) / cells
    centres = np.arange(patches) + 0.5
    table = np.maximum(np.exp(-np.square(places - centres[:, None])), 1e-12).astype(np.float32)  # no slow denormals
    table.setflags(write=False)
    return table


SCHEMES = (
    Scheme(
        name="motion-guided",
        paper="MGMAE",
        section="sec. 3.2",
        mask=MotionGuided(ratio=0.9),
        grid=CLIP,
        visible=152,
        title="Motion-guided",
        note=(
            "A map of the middle frame, carried along the optical flow: what is visible stays on the things it shows. "
            "177 of each time step's 196 tokens are hidden."
        ),
    ),
)
