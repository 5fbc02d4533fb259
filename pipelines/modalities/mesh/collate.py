"""Concatenates the views of a batch to one graph, and renumbers nodes and edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.patterns.mesh_nodes import submesh
from maskstream.shards.errors import ShardError

from .batch import MeshBatch
from .graph import Graph

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshView:
    """The fields of a MeshBatch for one view; nodes and edges are numbered from 0."""

    positions: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int64]
    graph: Graph
    state: npt.NDArray[np.float32]
    next_state: npt.NDArray[np.float32] | None
    counts: npt.NDArray[np.float32]
    mask: MaskBatch | None
    step: int


def mesh_batch(
    views: Sequence[MeshView], *, label: Sequence[int], key: list[str], change: npt.NDArray[np.float32]
) -> MeshBatch:
    """The batch of the given views, with a label and a key per view; `change` is float32 (D,), as in `MeshBatch`.

    Raises ShardError for meshes that make no batch: of two and of three dimensions, or surfaces and simulations.
    """
    forms = {(view.positions.shape[1], view.state.shape[1], view.next_state is None): n for n, view in enumerate(views)}
    if len(forms) > 1:
        (one, at), (other, then), *_ = forms.items()
        raise ShardError(
            f"sample {key[at]!r} has {_form(*one)}, sample {key[then]!r} {_form(*other)}; they make no batch, so write "
            "them to two splits"
        )
    node_offset = _offsets([len(view.positions) for view in views])
    edges = np.concatenate(
        [view.graph.edges + first for view, first in zip(views, node_offset, strict=False)], axis=1, dtype=np.int64
    )
    counts = _concatenated([view.counts for view in views])
    mask = _mask(views, node_offset, counts)
    left = None if mask is None else submesh(mask.masked[0].numpy(), edges)
    nexts = [view.next_state for view in views if view.next_state is not None]
    return MeshBatch(
        positions=_concatenated([view.positions for view in views]),
        kinds=_concatenated([view.kinds for view in views]),
        node_offset=torch.from_numpy(node_offset),
        edges=torch.from_numpy(edges),
        edge_features=_concatenated([view.graph.features for view in views]),
        edge_offset=torch.from_numpy(_offsets([view.graph.edges.shape[1] for view in views])),
        state=_concatenated([view.state for view in views]),
        next_state=_concatenated(nexts) if nexts else None,
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
    """The masks of all views, concatenated to one row over all nodes; None without masks."""
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


def _concatenated(parts: Sequence[npt.NDArray[np.float32]] | Sequence[Int64s]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


def _offsets(lengths: Sequence[int]) -> Int64s:
    return np.cumsum([0, *lengths], dtype=np.int64)
