"""A batch of meshes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshBatch(Batch):
    """A batch of meshes, concatenated to one graph of N nodes and E edges; no edge connects two meshes.

    node_offset, edge_offset: int64 (B + 1,); mesh i has the nodes and edges [offset[i], offset[i + 1]). positions:
    float32 (N, d) as stored, d = 2 or 3. kinds: int64 (N,), the node types of MeshGraphNets (0 normal, 4 inflow, 5
    outflow, 6 wall); 0 for surfaces. edges: int64 (2, E), senders and receivers; every mesh edge in both directions.
    edge_features: float32 (E, d + 1), the vector from receiver to sender and its length, in mean edge lengths of the
    dataset.

    state: float32 (N, D), the fields at a step, normalised by the dataset's mean and standard deviation, plus noise if
    the loader adds it; for surfaces the unit normals. next_state: float32 (N, D), the fields one step later, without
    noise; None for surfaces. change: float32 (D,), the standard deviation of the change per step, in units of `state`.
    step: int64 (B,), the number of the step. counts: float32 (N,), the weight of a node in a loss: 1 if its fields are
    free (normal and outflow nodes, all nodes of surfaces), 0 if they are prescribed.

    mask: MaskBatch of one row over the N nodes, or None; the weight of a target is its `counts`. visible_edges: int64
    (2, K), the edges between visible nodes, as indexes into mask.visible. kept_edges: int64 (K,), the same edges as
    indexes into `edges`. Both are None without a mask.
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
        """With the weights float32 (samples,) of its samples and of their views; `counts` are weighted too."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        of_node = weight.repeat_interleave(self.node_offset.diff())
        mask = self.mask and replace(self.mask, weight=self.mask.weight * of_node[self.mask.target])
        return replace(self, weight=weight, counts=self.counts * of_node, mask=mask)
