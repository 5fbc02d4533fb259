"""Masks of 3-D shapes: occupied and empty voxels, and mesh nodes with their edges."""

from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks.core import (
    Draw,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    TokenGrid,
    as_schedule,
    sized,
)
from maskstream.shards.arrays import Bools, Int64s

from .padded import Padded
from .random import draw_random_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelAware(Mask):
    """Hide random tokens, with ratio `foreground` for occupied ones and `background` for empty ones.

    Of N_f occupied tokens, ceil((1 - foreground) N_f) are visible, at least 1; of N_b empty ones, ceil((1 - background)
    N_b). Counts differ between clouds (see `Padded`). The grid's axes are (x, y, z); the mask input is `occupied`, from
    the cloud that the model receives. Source: FastDiT-3D (Mo et al. 2023), near 0.99 overall; 32768 tokens at
    resolution 128 in patches of 4.

    Attributes:
        foreground: Ratio of occupied tokens.
        background: Ratio of empty tokens.
        total: Overall ratio, to give every cloud the same count: floor((1 - total) N) tokens are visible. The
            foreground keeps its count and the background gets the rest; if the background has too few tokens, or the
            rest is negative, the foreground's count changes. None leaves counts unequal.
    """

    foreground: Ratio = 0.95
    background: Ratio = 0.99
    total: Ratio | None = None

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"occupied"})

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        grid.need("x", "y", "z", by="VoxelAware")
        occupied = sized(draw.cues.need("occupied", by="VoxelAware"), grid.size, "occupied", "VoxelAware")
        inside, outside = np.flatnonzero(occupied), np.flatnonzero(~occupied)
        front = min(max(as_schedule(self.foreground).visible(len(inside), draw, "floor_masked"), 1), len(inside))
        if self.total is None:
            back = as_schedule(self.background).visible(len(outside), draw, "floor_masked")
        else:
            visible = as_schedule(self.total).visible(grid.size, draw, "floor_visible")
            back = min(max(visible - front, 0), len(outside))
            front = visible - back
        hidden = np.ones(grid.size, dtype=np.bool_)
        hidden[draw.rng.choice(inside, front, replace=False, shuffle=False)] = False
        hidden[draw.rng.choice(outside, back, replace=False, shuffle=False)] = False
        return hidden


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNodes(Mask):
    """Hide uniformly random nodes of a mesh, with an exact count; `submesh` extracts the graph of the visible nodes.

    The grid's axes are (node,). Source: MeshMask (Garnier et al. 2025), which hides up to 40 % of the nodes; the
    group's code uses 0.15 by default.

    Attributes:
        ratio: Fraction of hidden nodes among those not protected, or a ratio schedule.
        protect: Node types (mask input `kinds`) that are never hidden, such as inflow, outflow and wall. By default all
            nodes may be hidden, as published, and no mask input is needed.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
    """

    ratio: Ratio = 0.4
    protect: tuple[int, ...] = ()
    rounding: Rounding = "floor_visible"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"kinds"}) if self.protect else frozenset()

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        (n,) = grid.need("node", by="MeshNodes")
        free = np.ones(n, dtype=np.bool_)
        if self.protect:
            free = ~np.isin(sized(draw.cues.need("kinds", by="MeshNodes"), n, "kinds", "MeshNodes"), self.protect)
        places = np.flatnonzero(free)
        visible = as_schedule(self.ratio).visible(len(places), draw, self.rounding)
        hidden = np.zeros(n, dtype=np.bool_)
        hidden[places] = draw_random_tokens(len(places), visible, draw.rng)
        return hidden


@dataclass(frozen=True, kw_only=True, slots=True)
class Submesh:
    """Visible part of a graph, with nodes int64 (V,) and edges int64 (2, K).

    Attributes:
        nodes: int64 (V,): sorted original numbers of the visible nodes.
        edges: int64 (2, K): pairs of new node numbers.
        kept: int64 (K,): original numbers of the kept edges, to select their attributes.
    """

    nodes: Int64s
    edges: Int64s
    kept: Int64s


def submesh(masked: Bools, edges: Int64s) -> Submesh:
    """Extract the visible part of a graph; an edge is kept if both of its nodes are visible.

    Args:
        masked: bool (N,), True for hidden nodes.
        edges: int64 (2, E), pairs of node numbers.

    Raises:
        ValueError: An edge refers to a node outside 0 to N - 1.
    """
    if edges.ndim != 2 or len(edges) != 2 or (edges.size and not 0 <= edges.min() <= edges.max() < len(masked)):
        raise ValueError(
            f"edges are pairs of node numbers from 0 to {len(masked) - 1}, int64 (2, E), got shape {edges.shape}"
            + (f" with numbers from {edges.min()} to {edges.max()}" if edges.size else "")
        )
    visible = ~masked
    number = np.cumsum(visible) - 1
    kept = np.flatnonzero(visible[edges[0]] & visible[edges[1]])
    return Submesh(nodes=np.flatnonzero(visible), edges=number[edges[:, kept]], kept=kept)


NODES = TokenGrid(axes=("node",), shape=(1885,), patch=(1,))

SCHEMES = (
    Scheme(
        name="fastdit-3d",
        paper="FastDiT-3D",
        section="voxel-aware masking",
        mask=Padded(mask=VoxelAware(foreground=0.95, background=0.99)),
        grid=TokenGrid(axes=("x", "y", "z"), shape=(32, 32, 32), patch=(4, 4, 4)),
        title="Foreground and background",
        note=(
            "Hides 95 % of the tokens that contain points and 99 % of the empty ones. The two ratios are not in "
            "published code."
        ),
    ),
    Scheme(
        name="mesh-mask",
        paper="MeshMask",
        mask=MeshNodes(ratio=0.4),
        grid=NODES,
        visible=1131,
        title="Nodes and their edges",
        note=(
            "Hidden nodes leave the graph with all their edges; `masks.submesh` returns the rest. The group's "
            "code defaults to 15 %."
        ),
    ),
    Scheme(
        paper="MeshMask",
        section="with protected node types",
        mask=MeshNodes(ratio=0.4, protect=(6,)),
        grid=NODES,
        title="Nodes, some of them protected",
        note="Nodes of some types, such as walls, are never hidden.",
    ),
)
