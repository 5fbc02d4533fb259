"""The preview of meshes: a field, or a surface's normals, the nodes that are hidden, and the graph that is left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...pipelines.modalities.mesh.batch import MeshBatch
from ...pipelines.modalities.mesh.sample import MeshSampler
from ...shards.media.mesh_members import FIELDS
from ..figures.mesh_field import ShownField
from ..figures.mesh_picture import graph_picture, mesh_picture
from ..figures.pictures import Bool, data_uri
from ..figures.tokens import MaskCounts, MaskRow
from ..page import environment, plural, render
from .opened import Opened, SampleName

KINDS = {0: "normal", 4: "inflow", 5: "outflow", 6: "wall"}
"""Node types as in MeshGraphNets."""
_SIDE_PX = 760


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshFigure:
    """A picture as a `data:` address, with words. scale: the numbers at the ends of its colours, None for none."""

    title: str
    words: str
    picture: str
    scale: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphView:
    """One mesh. words: nodes, cells, step. kinds: how many nodes of each type, of a simulation."""

    name: SampleName
    words: str
    kinds: str
    figures: tuple[MeshFigure, ...]
    counts: MaskCounts | None
    edges: int
    kept_edges: int | None


def mesh_page(opened: Opened) -> str:
    """One HTML file, complete in itself, about every mesh of the batch."""
    sampler: MeshSampler = opened.loader.sampler
    simulated = FIELDS in opened.manifest.components
    facts = opened.facts(
        kind="simulations: a step of each" if simulated else "surfaces: normals are their fields",
        **{"mean edge": f"{sampler.statistics.edge_length:.4g}"},
    )
    return render(
        environment(),
        "preview_mesh.html.j2",
        title=opened.title,
        facts=facts,
        simulated=simulated,
        meshes=_views(opened, opened.batch, sampler),
    )


def _views(opened: Opened, batch: MeshBatch, sampler: MeshSampler) -> list[GraphView]:
    nodes, edges = batch.node_offset.tolist(), batch.edge_offset.tolist()
    kept = None if batch.kept_edges is None else batch.kept_edges.numpy()
    views = []
    for row, index in enumerate(opened.indexes()):
        mine, of_edges = slice(nodes[row], nodes[row + 1]), slice(edges[row], edges[row + 1])
        left = None
        if kept is not None:
            left = np.zeros(of_edges.stop - of_edges.start, dtype=bool)
            left[kept[(kept >= of_edges.start) & (kept < of_edges.stop)] - of_edges.start] = True
        views.append(_view(opened.name(row), batch, row, sampler, index, mine, of_edges, left))
    return views


def _view(
    name: SampleName,
    batch: MeshBatch,
    row: int,
    sampler: MeshSampler,
    index: int,
    nodes: slice,
    of_edges: slice,
    left: Bool | None,
) -> GraphView:
    """Mesh `row` of the batch: its nodes and edges, and which of the edges are left."""
    mesh, shown = sampler.mesh(index), ShownField.of(sampler, index)
    steps = sampler.n_steps(index)
    step = f"step {int(batch.step[row])} of {steps}" if steps else "a surface"
    mask = MaskRow.of(batch.mask, 0, nodes) if batch.mask else None
    fields = batch.fields[nodes].numpy()
    scale = shown.scale(fields)
    colours = shown.colours(fields, scale)
    picture = mesh_picture(mesh.positions, mesh.cells, colours, side_px=_SIDE_PX)
    title = f"{shown.name[0].upper()}{shown.name[1:]}"
    words = f"At {step}, in the data's units." if steps else "A colour for each direction."
    figures = [MeshFigure(title=title, words=words, picture=data_uri(picture), scale=scale)]
    pairs = (batch.edges[:, of_edges] - nodes.start).numpy()
    if mask is not None and left is not None:
        seen = mesh_picture(mesh.positions, mesh.cells, colours, hidden=mask.masked, side_px=_SIDE_PX)
        words = f"{mask.counts.tokens - mask.counts.visible:,} nodes are hidden; a cell with one is grey."
        figures.append(MeshFigure(title="What the encoder sees", words=words, picture=data_uri(seen)))
        graph = graph_picture(mesh.positions, pairs, mask.masked, left, side_px=_SIDE_PX)
        words = f"{int(left.sum()):,} of {len(left):,} edges have both ends, each counted in both directions."
        figures.append(MeshFigure(title="The graph that is left", words=words, picture=data_uri(graph)))
    return GraphView(
        name=name,
        words=f"{plural(len(mesh.positions), 'node')}, {plural(len(mesh.cells), 'cell')}, {step}",
        kinds=_kinds_words(mesh.kinds) if steps else "",
        figures=tuple(figures),
        counts=None if mask is None else mask.counts,
        edges=pairs.shape[1],
        kept_edges=None if left is None else int(left.sum()),
    )


def _kinds_words(kinds: npt.NDArray[np.int64]) -> str:
    """`412 normal, 20 inflow`."""
    found = Counter(kinds.tolist())
    return ", ".join(f"{count:,} {KINDS.get(kind, f'of type {kind}')}" for kind, count in sorted(found.items()))
