"""Motion-guided masks: visible tokens follow the content's motion from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal, TypedDict

import numpy as np

from maskstream.pipelines.masks.core import CLIP, DeviceMask, Draw, MaskBatch, Scheme, TokenGrid, placed, sized
from maskstream.pipelines.masks.core.ratio import RatioAlone, as_proportion_schedule, visible_count
from maskstream.shards.arrays import Bools, Float32s
from maskstream.shards.limits import NaturalFloat, PositiveInt

from .torch_maps import Draws, DrawTensors, Hidden, MapBackend, MotionDraws, Numbers, TorchMaps, send_draws

if TYPE_CHECKING:
    from torch import Tensor

    from maskstream.pipelines.capture import Captured

KERNELS = ("maskstream.pipelines.masks.patterns.maps",)

Start = Literal["mix_gauss", "pixel", "token"]
Base = Literal["middle", "first", "random"]
Per = Literal["slice", "clip"]
Fill = Literal["base", "none"]

FAINT = np.float32(1e-8)
"""Smallest value of a start map. After warping, only cells from outside the frame are exactly 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionGuided(DeviceMask):
    """Warp a random map of a base frame along the optical flow to all frames; keep the highest tokens visible.

    At ratio 0.9 on 8 x 14 x 14 tokens, 19 of each slice's 196 stay visible, 152 in all. The grid's axes are (t, h, w);
    the flow is backward flow between the t * patch[0] frames. Source: MGMAE (Huang et al. 2023).

    Attributes:
        ratio: Fraction of hidden tokens, or a schedule of ratios.
        start: Map of the base frame: "mix_gauss", Gaussian bumps as wide as a patch on random patches; "pixel", random
            map cells; "token", random patches.
        base: Frame of the random map; "random" draws it per view.
        per: Keep the highest tokens of each "slice" in time, or of the whole "clip" (published as topk_on_all).
        fill: Cells that come from outside the frame take the values of the random map ("base", published as consist) or
            0, which hides them ("none").
        cells: Map cells along the side of a patch; 16 is the paper's resolution for patches of 16 pixels.
        exposure: Standard deviation of noise added to the scores (sums over a token's pixels) of one random slice;
            published as exposure_chance, with 1.0.
        restart: Restart at scene cuts: each scene has its own base frame and random map. The published code does not
            detect cuts.
        compat: Reproduce two quirks of the published code: the flow is not inverted before the base frame, so visible
            tokens move against the content there, and the map starts with one patch more than tokens are visible (20
            for 19).
    """

    version: ClassVar[int] = 2  # 2: the map starts with as many patches as visible tokens, and restarts at cuts

    ratio: RatioAlone = 0.9
    start: Start = "mix_gauss"
    base: Base = "middle"
    per: Per = "slice"
    fill: Fill = "base"
    cells: PositiveInt = 4
    exposure: NaturalFloat = 0.0
    restart: bool = True
    compat: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"flow"})

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        flow, own = draw.cues.need("flow", by="MotionGuided"), self.draw_motion(grid, draw)
        starts = self._starts(draw, grid.shape[0] * grid.patch[0])
        self._check(grid, flow.shape)
        seen = import_numba_maps().carry([own], [flow], **self._choose_way(grid)) if not starts else []
        if starts:
            bounds = [0, *starts, len(flow) + 1]
            scenes = [self._scene(grid, draw, own, flow, *scene) for scene in pairwise(bounds)]
            seen = [np.concatenate(scenes)]
        return self._hide_ranked(grid, [own], seen, import_numba_maps())[0]

    def draw_on_device(self, grid: TokenGrid, draws: Sequence[Draw], flow: Tensor) -> MaskBatch:
        drawn = [self.draw_motion(grid, draw) for draw in draws]
        self._check(grid, flow.shape[1:])
        rows = grid.shape[0] if self.per == "slice" else 1
        hidden = capture_ranking(self, grid)(flow, *send_draws(drawn, grid.shape[0], flow.device).tensors)
        return placed(hidden, [own.visible * rows for own in drawn], grid)

    def draw_motion(self, grid: TokenGrid, draw: Draw) -> MotionDraws:
        """Draw all random numbers of a view's mask; they do not depend on its flow."""
        t, h, w = grid.need("t", "h", "w", by="MotionGuided")
        frames, rng = t * grid.patch[0], draw.rng
        ratio = as_proportion_schedule(self.ratio, by="MotionGuided").draw(draw)
        start = start_map(self.start, (h, w), self.cells, ratio, rng, compat=self.compat)
        base = {"middle": frames // 2, "first": 0}.get(self.base)
        base = int(rng.integers(frames)) if base is None else base
        noise = (int(rng.integers(t)), rng.normal(0.0, self.exposure, h * w)) if self.exposure else None
        visible, tokens = visible_count(h * w, ratio, "floor_visible"), h * w
        if self.per == "clip":
            visible, tokens = visible * t, tokens * t
        order = rng.permutation(tokens)
        return MotionDraws(start=start, base=base, noise=noise, visible=visible, order=order, ratio=ratio)

    def _starts(self, draw: Draw, frames: int) -> list[int]:
        """Return the frames that start a scene."""
        cuts = draw.cues.cuts
        if cuts is None or not self.restart:
            return []
        starts: list[int] = (np.flatnonzero(sized(cuts, frames - 1, "cuts", by="MotionGuided")) + 1).tolist()
        return starts

    def _scene(self, grid: TokenGrid, draw: Draw, own: MotionDraws, flow: Float32s, first: int, stop: int) -> Float32s:
        """Return the maps of frames [first, stop), float32 (T, H, W). The scene with the clip's base frame uses its
        map.
        """
        if first <= own.base < stop:
            scene = replace(own, base=own.base - first)
        else:
            frames, rng = stop - first, draw.rng
            start = start_map(
                self.start, (grid.shape[1], grid.shape[2]), self.cells, own.ratio, rng, compat=self.compat
            )
            base = {"middle": frames // 2, "first": 0}.get(self.base)
            scene = replace(own, start=start, base=int(rng.integers(frames)) if base is None else base)
        seen: Float32s = import_numba_maps().carry([scene], [flow[first : stop - 1]], **self._choose_way(grid))[0]
        return seen

    def _check(self, grid: TokenGrid, shape: Sequence[int]) -> None:
        """Raise ValueError unless `shape` is a valid flow shape, (T-1, h, w, 2)."""
        frames = grid.shape[0] * grid.patch[0]
        if len(shape) != 4 or shape[0] != frames - 1 or shape[-1] != 2:
            raise ValueError(
                f"a grid of {frames} frames needs the flow between them, with shape ({frames - 1}, h, w, 2), "
                f"got {tuple(shape)}"
            )

    def ranked_on_device(self, grid: TokenGrid, flow: Tensor, draws: DrawTensors) -> Tensor:
        """Return the hidden tokens of clips with this flow, bool (B, t * h * w)."""
        return self._hide_ranked(
            grid, draws, import_torch_maps().carry(draws, flow, **self._choose_way(grid)), import_torch_maps()
        )

    def _choose_way(self, grid: TokenGrid) -> CarrySettings:
        """Return the settings for warping maps."""
        _, patch_h, patch_w = grid.patch
        cell = (patch_w / self.cells, patch_h / self.cells)
        as_it_is = self.compat or self.base == "first"  # no frame precedes the first
        return {"cell": cell, "fill": self.fill == "base", "compat": as_it_is}

    def _hide_ranked(
        self, grid: TokenGrid, draws: Draws, seen: Numbers, backend: MapBackend[Draws, Numbers, Hidden]
    ) -> Hidden:
        """Return the hidden tokens, given the draws and the warped maps."""
        tubelet, patch_h, patch_w = grid.patch
        scores = backend.sum_tokens(seen, tubelet, self.cells)
        if self.exposure:
            scores = backend.disturbed(scores, draws, patch_h * patch_w / self.cells**2)  # scores are sums over pixels
        return backend.hide_all_but_highest(scores, draws, whole=self.per == "clip")


class CarrySettings(TypedDict):
    """Settings of `MapBackend.carry`."""

    cell: tuple[float, float]
    fill: bool
    compat: bool


@cache
def capture_ranking(mask: MotionGuided, grid: TokenGrid) -> Captured:
    """Capture the function that ranks tokens from the flow and the tensors of the draws."""
    from maskstream.pipelines.capture import Captured

    return Captured(lambda flow, *draws: mask.ranked_on_device(grid, flow, DrawTensors(*draws)))


@cache
def import_numba_maps() -> MapBackend[Sequence[MotionDraws], list[Float32s], list[Bools]]:
    """Import the numba backend at first use, since compiling takes time."""
    from .maps import NumbaMaps

    return NumbaMaps()


@cache
def import_torch_maps() -> MapBackend[DrawTensors, Tensor, Tensor]:
    """Import the torch backend."""
    return TorchMaps()


def start_map(
    start: Start,
    plane: tuple[int, int],
    cells: int,
    ratio: float,
    rng: np.random.Generator,
    *,
    compat: bool = False,
) -> Float32s:
    """Draw the base frame's map over h x w patches of cells x cells each: float32 (h * cells, w * cells) in (0, 1].

    Chooses as many patches as there are visible tokens; with `compat`, the count is rounded up as published (20 for
    19).
    """
    h, w = plane
    if start == "pixel":
        size = h * w * cells * cells
        flat = np.full(size, FAINT, dtype=np.float32)
        flat[rng.permutation(size)[: visible_count(size, ratio, "floor_visible")]] = 1.0
        return flat.reshape(h * cells, w * cells)
    count = visible_count(h * w, ratio, "floor_masked" if compat else "floor_visible")
    chosen = rng.permutation(h * w)[: max(count, 1)]
    if start == "token":
        tokens = np.full(h * w, FAINT, dtype=np.float32)
        tokens[chosen] = 1.0
        return tokens.reshape(h, w).repeat(cells, axis=0).repeat(cells, axis=1)
    from .maps import find_highest_bump

    return find_highest_bump(bumps(h, cells), bumps(w, cells), chosen, FAINT)


@lru_cache(maxsize=32)
def bumps(patches: int, cells: int) -> Float32s:
    """Return exp(-d^2) along one axis, with d the distance of a patch's centre to a cell's, in patches: (patches,
    patches * cells).
    """
    places = (np.arange(patches * cells) + 0.5) / cells
    centres = np.arange(patches) + 0.5
    table = np.maximum(np.exp(-np.square(places - centres[:, None])), 1e-12).astype(np.float32)  # avoid slow denormals
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
            "A map of the middle frame is warped along the optical flow, so visible tokens follow the content. "
            "177 of 196 tokens per time step are hidden."
        ),
    ),
)
