"""Mesh nodes: random nodes of a mesh are hidden, and their edges with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw, TokenGrid, sized
from maskstream.pipelines.masks.core.ratio import Ratio, Rounding, as_law, check_rounding
from maskstream.pipelines.masks.core.scheme import Scheme

from .random import random_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNodes(Mask):
    """Uniformly random nodes of a mesh, with an exact count; `submesh` gives the graph of the visible nodes.

    protect: node types (cue `kinds`) that are never hidden, such as inflow, outflow and wall; the ratio is that of the
        other nodes. By default all nodes can be hidden, as published, and no cue is needed.

    The grid's axes are (node,). Source: MeshMask (Garnier et al. 2025), which hides up to 40 % of the nodes;
    the group's code takes 0.15 by default.
    """

    ratio: Ratio = 0.4
    protect: tuple[int, ...] = ()
    rounding: Rounding = "floor_visible"

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"kinds"}) if self.protect else frozenset()

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        (n,) = grid.need("node", by="MeshNodes")
        free = np.ones(n, dtype=np.bool_)
        if self.protect:
            free = ~np.isin(sized(draw.cues.need("kinds", by="MeshNodes"), n, "kinds", "MeshNodes"), self.protect)
        places = np.flatnonzero(free)
        visible = as_law(self.ratio).visible(len(places), draw, self.rounding)
        hidden = np.zeros(n, dtype=np.bool_)
        hidden[places] = random_tokens(len(places), visible, draw.rng)
        return hidden


@dataclass(frozen=True, kw_only=True, slots=True)
class Submesh:
    """The visible part of a graph: nodes int64 (V,), the old numbers of its nodes, sorted; edges int64 (2, K), pairs of
    new numbers; kept int64 (K,), the old numbers of these edges, which select their attributes.
    """

    nodes: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]


def submesh(masked: npt.NDArray[np.bool_], edges: npt.NDArray[np.int64]) -> Submesh:
    """The visible part of a graph of N nodes, masked bool (N,), with edges int64 (2, E).

    An edge is kept if both of its nodes are visible. ValueError for an edge of a node number outside 0 to N - 1.
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
        name="mesh-mask",
        paper="MeshMask",
        mask=MeshNodes(ratio=0.4),
        grid=NODES,
        visible=1131,
        title="Nodes and their edges",
        note=(
            "Hidden nodes leave the graph with all of their edges; `masks.submesh` gives what is left. The group's "
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
