"""Figures of meshes: a field or a surface's normals, hidden nodes, the graph that is left, and completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.modalities.mesh.batch import MeshBatch
from maskstream.pipelines.modalities.mesh.read import MeshReader, StoredMesh

from .audio import index_of
from .card import Card, Fact, Facts, Picture, PictureGrid, label_words
from .figures import mask_facts
from .mesh_picture import ShownField, graph_picture, mesh_picture
from .pictures import Bool, UInt8, data_uri
from .tokens import MaskRow
from .words import plural

KINDS = {0: "normal", 4: "inflow", 5: "outflow", 6: "wall"}
"""Node types as in MeshGraphNets."""
_SIDE_PX = 760

Float32s = npt.NDArray[np.float32]
Scale = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshFigures:
    """Of meshes that `reader` reads: a batch holds graphs, and no cells."""

    reader: MeshReader
    label_names: Sequence[str] = ()

    @property
    def simulated(self) -> bool:
        """Whether they are simulations, and no surfaces."""
        return self.reader.trajectory in self.reader.manifest.components

    def about(self, batch: MeshBatch) -> tuple[str, dict[str, str]]:
        """What meshes show of themselves."""
        n = len(batch)
        what = "a step of each simulation" if self.simulated else "each with the normals at its nodes"
        lede = (
            f"{n} {'mesh' if n == 1 else 'meshes'} as the training loop receives {'it' if n == 1 else 'them'}: {what}, "
            "and the mask. A token is a node. Hidden nodes leave the graph with all of their edges, and a model has to "
            "say what their fields were."
        )
        kind = "simulations: a step of each" if self.simulated else "surfaces: normals are their fields"
        return lede, {"kind": kind, "mean edge": f"{self.reader.statistics.edge_length:.4g}"}

    def sample(self, batch: MeshBatch, i: int) -> Card:
        """The field, what the encoder sees of it, and the graph that is left."""
        key, index = batch.key[i], index_of(self.reader.manifest, batch.key[i])
        nodes, edges = nodes_of(batch, i), slice(*batch.edge_offset[i : i + 2].tolist())
        mesh, shown, steps = self.reader.mesh(index), ShownField.of(self.reader, index), self.reader.n_steps(index)
        mask = MaskRow.of(batch.mask, 0, nodes) if batch.mask else None
        fields = batch.state[nodes].numpy()
        scale = shown.scale(fields)
        step = f"step {int(batch.step[i])} of {steps}" if steps else "a surface"
        words = f"At {step}, in the data's units." if steps else "A colour for each direction."
        title = f"{shown.name[0].upper()}{shown.name[1:]}"
        colours = shown.colours(fields, scale)
        picture = mesh_picture(mesh.positions, mesh.cells, colours, side_px=_SIDE_PX)
        figures = [_figure(title, words, picture, key, scale)]
        pairs = (batch.edges[:, edges] - nodes.start).numpy()
        left = None
        if mask is not None and batch.kept_edges is not None:
            kept = batch.kept_edges.numpy()
            left = np.zeros(pairs.shape[1], dtype=bool)
            left[kept[(kept >= edges.start) & (kept < edges.stop)] - edges.start] = True
            seen = mesh_picture(mesh.positions, mesh.cells, colours, hidden=mask.masked, side_px=_SIDE_PX)
            words = f"{mask.counts.tokens - mask.counts.visible:,} nodes are hidden; a cell with one is grey."
            figures.append(_figure("What the encoder sees", words, seen, key))
            graph = graph_picture(mesh.positions, pairs, mask.masked, left, side_px=_SIDE_PX)
            words = f"{int(left.sum()):,} of {len(left):,} edges have both ends, each counted in both directions."
            figures.append(_figure("The graph that is left", words, graph, key))
        facts = [*(() if mask is None else mask_facts(mask.counts, "nodes")), _edges(pairs.shape[1], left)]
        if steps:
            facts.append(Fact(name="Nodes by type", value=_kinds_words(mesh.kinds), plain=True))
        return Card(
            key=key,
            words=f"{plural(len(mesh.positions), 'node')}, {plural(len(mesh.cells), 'cell')}, {step}",
            label=label_words(int(batch.label[i]), self.label_names),
            facts=(Facts(items=tuple(facts)),),
            figures=tuple(figures),
            missing=() if mask else ("The loader was built without a mask.",),
        )

    def compared(self, batch: MeshBatch, made: MeshBatch, i: int) -> Card:
        """The field, what the encoder saw of it, and the field with the model's values at hidden nodes."""
        if batch.mask is None:
            raise ValueError("a reconstruction is of masked meshes, but the batch has no mask; give the loader mask=")
        index, nodes = index_of(self.reader.manifest, batch.key[i]), nodes_of(batch, i)
        mesh, shown = self.reader.mesh(index), ShownField.of(self.reader, index)
        truth, completed = batch.state[nodes], made.state[nodes]
        hidden, scale = batch.mask.masked[0, nodes], shown.scale(truth.numpy())
        free = (batch.counts[nodes] > 0) & hidden
        error = float((completed - truth)[free].square().mean().sqrt()) if free.any() else 0.0
        pictures = {
            "Original": field_picture(mesh, shown, truth.numpy(), scale),
            "The encoder saw": field_picture(mesh, shown, truth.numpy(), scale, hidden.numpy()),
            "Reconstruction": field_picture(mesh, shown, completed.numpy(), scale),
        }
        return Card(
            key=batch.key[i],
            words=f"{shown.name}, step {int(batch.step[i])}; error {error:.3f} of a deviation at {int(free.sum()):,} "
            "free nodes",
            figures=tuple(
                PictureGrid(
                    items=(Picture(uri=data_uri(one), alt=f"{name}, {batch.key[i]}"),),
                    across=1,
                    title=name,
                )
                for name, one in pictures.items()
            ),
        )


def nodes_of(batch: MeshBatch, i: int) -> slice:
    """The nodes of mesh `i` of a batch."""
    return slice(*batch.node_offset[i : i + 2].tolist())


def field_picture(
    mesh: StoredMesh, shown: ShownField, fields: Float32s, scale: Scale, hidden: Bool | None = None
) -> UInt8:
    """The mesh in the colours of its fields (V, D), uint8 (H, W, 3)."""
    return mesh_picture(mesh.positions, mesh.cells, shown.colours(fields, scale), hidden=hidden)


def _figure(title: str, words: str, picture: UInt8, key: str, scale: Scale = None) -> PictureGrid:
    items = (Picture(uri=data_uri(picture), alt=f"{title} of {key}"),)
    return PictureGrid(items=items, across=1, title=title, words=words, scale=scale)


def _edges(count: int, left: Bool | None) -> Fact:
    if left is None:
        return Fact(name="Edges", value=f"{count:,}")
    return Fact(name="Edges left", value=f"{int(left.sum()):,}", of=f"of {count:,}")


def _kinds_words(kinds: npt.NDArray[np.int64]) -> str:
    """`412 normal, 20 inflow`."""
    found = Counter(kinds.tolist())
    return ", ".join(f"{count:,} {KINDS.get(kind, f'of type {kind}')}" for kind, count in sorted(found.items()))
