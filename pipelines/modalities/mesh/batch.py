"""Batches of meshes, and the graph of a mesh: its nodes, and each edge of its cells in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.masks import MaskBatch, TokenGrid
from maskstream.pipelines.masks.patterns.shapes import submesh
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.kept import empty
from maskstream.shards.arrays import Float32s, Int32s, Int64s
from maskstream.shards.errors import ShardError


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """Directed graph of a mesh with E edges in d dimensions.

    Attributes:
        edges: int64 (2, 2E): senders and receivers. The first E edges go from the lower to the higher node number, in
            ascending order; the other E are the same edges reversed.
        features: float32 (2E, d + 1): vector from receiver to sender and its length.
    """

    edges: Int64s
    features: Float32s

    @property
    def sides(self) -> Int64s:
        """Each edge once, int64 (2, E), with the lower node number first."""
        return self.edges[:, : self.edges.shape[1] // 2]


def build_graph(positions: Float32s, cells: Int32s, length: float = 1.0) -> Graph:
    """Build the graph of cells over nodes.

    Args:
        positions: float32 (V, d), node positions.
        cells: int32 (C, k), triangles (k = 3) or tetrahedra (k = 4).
        length: Unit of the edge features, in the positions' units.

    Raises:
        ValueError: A cell refers to a node that does not exist.
    """
    from .kernels import direct_both_ways, list_neighbours

    cells = _check_cells(cells, positions)
    starts, found = list_neighbours(cells, len(positions))
    edges, features = direct_both_ways(starts, found, np.ascontiguousarray(positions, dtype=np.float32), 1 / length)
    return Graph(edges=edges, features=features)


def compute_surface_normals(vertices: Float32s, faces: Int32s) -> Float32s:
    """Compute the unit normals of a surface's vertices, float32 (V, 3), as area-weighted means of face normals.

    A vertex whose mean is 0 has the normal 0.

    Args:
        vertices: float32 (V, 3).
        faces: int32 (F, 3).

    Raises:
        ValueError: A face refers to a vertex that does not exist.
    """
    from .kernels import compute_vertex_normals

    faces = _check_cells(faces, vertices)
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise ValueError(f"vertices must be (V, 3) and faces (F, 3), got {vertices.shape} and {faces.shape}")
    return compute_vertex_normals(np.ascontiguousarray(vertices, np.float32), faces)


def _check_cells(cells: Int32s, positions: Float32s) -> Int32s:
    """Prepare cells for a kernel without bounds checks: int32 (C, k) in C order.

    Raises:
        ValueError: A cell refers to a node that does not exist.
    """
    if cells.ndim != 2 or positions.ndim != 2:
        raise ValueError(f"cells must be (C, k) and positions (V, d), got {cells.shape} and {positions.shape}")
    if cells.size and (cells.min() < 0 or cells.max() >= len(positions)):
        raise ValueError(f"cells refer to nodes {cells.min()} to {cells.max()}; expected 0 to {len(positions) - 1}")
    return np.ascontiguousarray(cells, dtype=np.int32)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshBatch(Batch):
    """A batch of meshes, concatenated to one graph of N nodes and E edges; no edge connects two meshes.

    `edges` is int64 (2, E) and `state` float32 (N, D). Mesh i has the nodes and edges [offset[i], offset[i + 1]).

    Attributes:
        positions: float32 (N, d) as stored, d = 2 or 3.
        kinds: int64 (N,): node types of MeshGraphNets (0 normal, 4 inflow, 5 outflow, 6 wall); 0 for surfaces.
        node_offset: int64 (B + 1,): first node of each mesh.
        edges: int64 (2, E): senders and receivers; every mesh edge in both directions.
        edge_features: float32 (E, d + 1): vector from receiver to sender and its length, in mean edge lengths of the
            dataset.
        edge_offset: int64 (B + 1,): first edge of each mesh.
        state: float32 (N, D): fields at a step, normalised by the dataset's mean and standard deviation, plus noise if
            the loader adds it; unit normals for surfaces.
        next_state: float32 (N, D): fields one step later, without noise; None for surfaces.
        change: float32 (D,): standard deviation of the change per step, in units of `state`.
        counts: float32 (N,): loss weight of each node: 1 if its fields are free (normal and outflow nodes, all nodes of
            surfaces), 0 if they are prescribed.
        mask: Mask of one row over the N nodes, or None; the weight of a target is its entry in `counts`.
        visible_edges: int64 (2, K): edges between visible nodes, as indexes into mask.visible; None without a mask.
        kept_edges: int64 (K,): the same edges as indexes into `edges`; None without a mask.
        step: int64 (B,): number of the step.
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
        """Apply sample weights, float32 (samples,), to all views of each sample, including `counts`."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        of_node = weight.repeat_interleave(self.node_offset.diff())
        mask = self.mask and replace(self.mask, weight=self.mask.weight * of_node[self.mask.target])
        return replace(self, weight=weight, counts=self.counts * of_node, mask=mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshView:
    """Fields of a MeshBatch for one view; nodes and edges are numbered from 0."""

    positions: Float32s
    kinds: Int64s
    graph: Graph
    state: Float32s
    next_state: Float32s | None
    counts: Float32s
    mask: MaskBatch | None
    step: int


def build_mesh_batch(views: Sequence[MeshView], *, label: Sequence[int], key: list[str], change: Float32s) -> MeshBatch:
    """Combine views into a batch, with a label and a key per view; `change` is float32 (D,), as in `MeshBatch`.

    Raises:
        ShardError: Two- and three-dimensional meshes, or surfaces and simulations, are combined.
    """
    forms = {(view.positions.shape[1], view.state.shape[1], view.next_state is None): n for n, view in enumerate(views)}
    if len(forms) > 1:
        (one, at), (other, then), *_ = forms.items()
        raise ShardError(
            f"sample {key[at]!r} has {_form(*one)}, but sample {key[then]!r} has {_form(*other)}; they cannot "
            "share a batch, so write them to separate splits"
        )
    node_offset = _compute_offsets([len(view.positions) for view in views])
    edges = np.concatenate(
        [view.graph.edges + first for view, first in zip(views, node_offset, strict=False)], axis=1, dtype=np.int64
    )
    counts = _concatenate_rows([view.counts for view in views])
    mask = _mask(views, node_offset, counts)
    left = None if mask is None else submesh(mask.masked[0].numpy(), edges)
    nexts = [view.next_state for view in views if view.next_state is not None]
    return MeshBatch(
        positions=_concatenate_rows([view.positions for view in views]),
        kinds=_concatenate_rows([view.kinds for view in views]),
        node_offset=torch.from_numpy(node_offset),
        edges=torch.from_numpy(edges),
        edge_features=_concatenate_rows([view.graph.features for view in views]),
        edge_offset=torch.from_numpy(_compute_offsets([view.graph.edges.shape[1] for view in views])),
        state=_concatenate_rows([view.state for view in views]),
        next_state=_concatenate_rows(nexts) if nexts else None,
        change=torch.from_numpy(change),
        counts=counts,
        mask=mask,
        visible_edges=None if left is None else torch.from_numpy(left.edges),
        kept_edges=None if left is None else torch.from_numpy(left.kept),
        label=torch.tensor(label, dtype=torch.int64),
        step=torch.tensor([view.step for view in views], dtype=torch.int64),
        key=key,
    )


def _form(dims: int, channels: int, surface: bool) -> str:
    return f"{channels} channels on the nodes of a {'surface' if surface else 'simulation'} in {dims} dimensions"


def _mask(views: Sequence[MeshView], node_offset: Int64s, counts: Tensor) -> MaskBatch | None:
    """Concatenate the masks of all views to one row over all nodes; None without masks."""
    masks = [(view.mask, int(first)) for view, first in zip(views, node_offset, strict=False) if view.mask is not None]
    if not masks:
        return None
    target = torch.cat([mask.target[0] + first for mask, first in masks])
    weight = torch.cat([mask.weight[0] for mask, _ in masks])
    masked = torch.cat([mask.masked for mask, _ in masks], dim=1)
    return MaskBatch(
        grid=TokenGrid(axes=("node",), shape=(masked.shape[1],), patch=(1,)),
        masked=masked,
        visible=torch.cat([mask.visible[0] + first for mask, first in masks])[None],
        target=target[None],
        weight=(weight * counts[target])[None],
    )


def _concatenate_rows(parts: Sequence[Float32s] | Sequence[Int64s]) -> Tensor:
    whole = empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    return torch.from_numpy(np.concatenate(parts, out=whole))


def _compute_offsets(lengths: Sequence[int]) -> Int64s:
    return np.cumsum([0, *lengths], dtype=np.int64)
