"""A batch of meshes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ...masks.core.batch import MaskBatch
from ...stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshBatch(Batch):
    """A batch of meshes, put together as one graph of N nodes in which nothing joins one mesh to another.

    node_offset, edge_offset: int64 (B + 1,), the nodes and edges of mesh i are those from offset i to offset i + 1.
    positions: float32 (N, 2 or 3), as stored. kinds: int64 (N,), node types (0 normal, 4 inflow, 5 outflow, 6 wall as
    in MeshGraphNets; 0 throughout on surfaces). edges: int64 (2, E), senders and receivers, each side of a cell in both
    directions; edge_features: float32 (E, d + 1), from the receiver to the sender and the distance, in mean edge
    lengths of the dataset.

    state: float32 (N, D), normalised by the dataset's mean and deviation (the unit normals of a surface as they are),
    with noise where the loader adds some; next_state: the same one step later, without noise, None for surfaces.
    change: float32 (D,), the deviation of a step's change in the units of state. step: int64 (B,), which step it is.
    counts: float32 (N,), what a node counts in a loss: 1 where the field is free (normal and outflow nodes, all nodes
    of a surface), 0 where it is given.

    mask: MaskBatch of one row over the N nodes, or None; a target's weight is its `counts`. visible_edges: int64
    (2, K), the edges between visible nodes, numbered as in mask.visible; kept_edges: int64 (K,), their places among
    `edges`.
    """

    positions: Tensor
    kinds: Tensor
    node_offset: Tensor
    edges: Tensor
    edge_features: Tensor
    edge_offset: Tensor
    state: Tensor
    next_state: Tensor | None
    change: Tensor
    counts: Tensor
    mask: MaskBatch | None
    visible_edges: Tensor | None
    kept_edges: Tensor | None
    step: Tensor

    def weighted(self, weight: Tensor) -> MeshBatch:
        """As `Batch.weighted`; nodes of a mesh of weight 0 count nothing."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        of_node = weight.repeat_interleave(self.node_offset.diff())
        mask = self.mask and replace(self.mask, weight=self.mask.weight * of_node[self.mask.target])
        return replace(self, weight=weight, counts=self.counts * of_node, mask=mask)
