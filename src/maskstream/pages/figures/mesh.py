"""Figures of meshes: a field or a surface's normals, hidden nodes, the remaining graph, and reconstructions.

Meshes are drawn as triangles in the colours of their corners, with hidden nodes in grey. The drawn field is the length
of a mesh's first vector, its only channel, or a surface's normals.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from maskstream.pipelines.modalities.mesh.batch import MeshBatch
from maskstream.pipelines.modalities.mesh.read import MeshReader, MeshStatistics, StoredMesh
from maskstream.shards.arrays import Bools, Float32s, Int32s, Int64s, UInt8s
from maskstream.shards.errors import DataError

from .card import Card, Fact
from .figures import MaskRow, find_sample, sample_card
from .pictures import coloured, draw_panel
from .words import plural

MARGIN_PX = 4
_SUBPIXEL_BITS = 4
_HIDDEN = np.array([0x55, 0x55, 0x5A], dtype=np.float32)
_PAPER = 255
NODE, _EDGE, _GONE = (0x0B, 0x73, 0x94), (0x5F, 0xA8, 0xBD), (0xE2, 0xE5, 0xE8)
_VIEW = np.array([[0.86, -0.5, 0.0], [-0.25, -0.43, -0.87], [0.43, 0.75, -0.5]], dtype=np.float32)
"""The camera axes for meshes in space: right, down and forward, in the coordinates of the mesh."""


def draw_mesh(
    positions: Float32s,
    cells: Int32s,
    colours: UInt8s,
    *,
    hidden: Bools | None = None,
    side_px: int = 420,
) -> UInt8s:
    """Draw a mesh; in space, farther cells are drawn first.

    Args:
        positions: Nodes float32 (V, 2 or 3).
        cells: Cells (C, 3 or 4).
        colours: Colours of the nodes, uint8 (V, 3).
        hidden: Nodes with unknown colour, bool (V,); their cells are grey, darker with more hidden corners.
        side_px: Longer side of the image in pixels.

    Returns:
        uint8 (H, W, 3).
    """
    places, depth = _project_points(positions)
    sheet, pixels = _make_sheet(places, side_px)
    triangles = _triangles(cells)
    if depth is not None:
        triangles = triangles[np.argsort(-depth[triangles].mean(axis=1), kind="stable")]
    shades = colours.astype(np.float32)[triangles].mean(axis=1)
    if hidden is not None:
        share = hidden[triangles].mean(axis=1, keepdims=True)
        shades = np.where(share > 0, _HIDDEN + (1 - share) * 120, shades)
    for corners, shade in zip(pixels[triangles], shades.astype(np.uint8).tolist(), strict=True):
        cv2.fillConvexPoly(sheet, corners, shade, cv2.LINE_AA, _SUBPIXEL_BITS)
    return sheet


def draw_graph(positions: Float32s, edges: Int64s, hidden: Bools, left: Bools, *, side_px: int = 420) -> UInt8s:
    """Draw a graph.

    Args:
        positions: Nodes float32 (V, 2 or 3).
        edges: int64 (2, E).
        hidden: Nodes without dots, bool (V,).
        left: Remaining edges, bool (E,), drawn over the others, which are pale.
        side_px: Longer side of the image in pixels.

    Returns:
        uint8 (H, W, 3).
    """
    places, _ = _project_points(positions)
    sheet, pixels = _make_sheet(places, side_px)
    for chosen, colour in ((~left, _GONE), (left, _EDGE)):
        lines = pixels[edges[:, chosen].T].reshape(-1, 2, 1, 2)
        cv2.polylines(sheet, list(lines), False, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    for place in pixels[~hidden].tolist():
        cv2.circle(sheet, place, 2 << _SUBPIXEL_BITS, NODE, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return sheet


def _make_sheet(places: Float32s, side_px: int) -> tuple[UInt8s, Int32s]:
    """Return an empty image whose longer side is `side_px`, and positions (V, 2) in it, in parts of a pixel."""
    low, high = places.min(axis=0), places.max(axis=0)
    scale = (side_px - 2 * MARGIN_PX) / max(float((high - low).max()), 1e-12)
    width, height = np.ceil((high - low) * scale + 2 * MARGIN_PX).astype(int).tolist()
    sheet = np.full((max(height, 1), max(width, 1), 3), _PAPER, dtype=np.uint8)
    return sheet, np.round(((places - low) * scale + MARGIN_PX) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _project_points(positions: Float32s) -> tuple[Float32s, Float32s | None]:
    """Return positions in the plane of the image, y downwards, and in space the distance of each node from the
    viewer.
    """
    if positions.shape[1] == 2:
        return positions * np.array([1, -1], dtype=np.float32), None
    turned = positions @ _VIEW.T
    return turned[:, :2], turned[:, 2]


def _triangles(cells: Int32s) -> Int32s:
    """Convert cells to triangles; a tetrahedron to its four faces."""
    if cells.shape[1] == 3:
        return cells
    return np.concatenate([np.delete(cells, corner, axis=1) for corner in range(4)])


_NOTHING = 1e-4
_TAILS = ("_x", "_y", "_z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownField:
    """The drawn field of one mesh: the length of `channels`, or normals as colours if there are none."""

    statistics: MeshStatistics
    name: str
    channels: tuple[int, ...]

    @classmethod
    def of(cls, reader: MeshReader, index: int) -> Self:
        """Choose the first field in a sample's `field_names`; raise SampleError if they are not names.

        Args:
            reader: Reader of the meshes.
            index: Index of the sample.
        """
        member = reader.manifest.member(index, "json")
        with reader.manifest.reading(index, "json"):
            described = json.loads(reader.manifest.store.read(*member))
            names = described.get("field_names", []) if isinstance(described, dict) else None
            if not isinstance(names, list) or (names and len(names) != len(reader.statistics.mean)):
                raise DataError(
                    f"field_names are {names!r}, but there must be one name for each of "
                    f"{len(reader.statistics.mean)} channels"
                )
        names = [str(name) for name in names]
        if not names:
            return cls(statistics=reader.statistics, name="normals", channels=())
        stem = names[0].removesuffix(_TAILS[0])
        channels = tuple(i for i, name in enumerate(names) if name in (stem, *(stem + tail for tail in _TAILS)))
        said = f"length of {stem}" if len(channels) > 1 else stem
        return cls(statistics=reader.statistics, name=said, channels=channels)

    def values(self, fields: Float32s) -> Float32s:
        """Return the drawn numbers (...) of normalised fields (..., D), in the data's units."""
        chosen = list(self.channels)
        mean, deviation = (np.asarray(each)[chosen] for each in (self.statistics.mean, self.statistics.deviation))
        stored = fields[..., chosen] * deviation + mean
        values: Float32s = np.linalg.norm(stored, axis=-1) if len(chosen) > 1 else stored[..., 0]
        return values

    def scale(self, fields: Float32s) -> tuple[float, float] | None:
        """Return the numbers at the ends of the colour scale of fields (..., D); None for normals."""
        if not self.channels:
            return None
        low, high = map(float, np.percentile(self.values(fields), (1, 99)))
        return (0.0 if abs(low) < _NOTHING * abs(high) else low), high

    def colours(self, fields: Float32s, scale: tuple[float, float] | None) -> UInt8s:
        """Return the colours uint8 (V, 3) of fields.

        Args:
            fields: Fields (V, D).
            scale: Numbers at the ends of the colour scale.
        """
        if scale is None:
            return ((np.clip(fields, -1, 1) + 1) * 127.5).astype(np.uint8)
        return np.asarray(coloured(self.values(fields)[:, None], *scale)[:, 0])


KINDS = {0: "normal", 4: "inflow", 5: "outflow", 6: "wall"}
"""Node types as in MeshGraphNets."""
_SIDE_PX = 760

Scale = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshFigures:
    """Figures of meshes, read by `reader`, since batches have graphs but not cells."""

    reader: MeshReader
    label_names: Sequence[str] = ()

    @property
    def simulated(self) -> bool:
        """Whether they are simulations, not surfaces."""
        return self.reader.trajectory in self.reader.manifest.components

    def about(self, batch: MeshBatch) -> tuple[str, dict[str, str]]:
        """Describe the meshes."""
        n = len(batch)
        what = "a step of each simulation" if self.simulated else "each with the normals at its nodes"
        lede = (
            f"{n} {'mesh' if n == 1 else 'meshes'} as the training loop receives {'it' if n == 1 else 'them'}: {what}, "
            "and the mask. A token is a node. Hidden nodes and all of their edges are removed from the graph, and a "
            "model reconstructs their fields."
        )
        kind = "simulations: a step of each" if self.simulated else "surfaces: normals are their fields"
        return lede, {"kind": kind, "mean edge": f"{self.reader.statistics.edge_length:.4g}"}

    def sample(self, batch: MeshBatch, i: int) -> Card:
        """Draw the field, its visible part, and the remaining graph.

        Args:
            batch: The batch.
            i: Row.
        """
        key, index = batch.key[i], find_sample(self.reader.manifest, batch.key[i])
        nodes, edges = get_mesh_nodes(batch, i), slice(*batch.edge_offset[i : i + 2].tolist())
        mesh, shown, steps = self.reader.mesh(index), ShownField.of(self.reader, index), self.reader.n_steps(index)
        mask = MaskRow.of(batch.mask, 0, nodes) if batch.mask else None
        fields = batch.state[nodes].numpy()
        scale = shown.scale(fields)
        step = f"step {int(batch.step[i])} of {steps}" if steps else "a surface"
        title = f"{shown.name[0].upper()}{shown.name[1:]}"
        colours = shown.colours(fields, scale)
        words = f"At {step}, in the data's units." if steps else "A colour for each direction."
        whole = draw_mesh(mesh.positions, mesh.cells, colours, side_px=_SIDE_PX)
        figures = [draw_panel(title, key, whole, words, scale)]
        pairs = (batch.edges[:, edges] - nodes.start).numpy()
        more = [Fact(name="Edges", value=f"{pairs.shape[1]:,}")]
        if mask is not None and batch.kept_edges is not None:
            left = np.isin(np.arange(edges.start, edges.stop), batch.kept_edges.numpy())
            n, of = f"{int(left.sum()):,}", f"of {len(left):,}"
            more = [Fact(name="Remaining edges", value=n, of=of)]
            hidden = mask.masked.size - mask.visible
            seen = draw_mesh(mesh.positions, mesh.cells, colours, hidden=mask.masked, side_px=_SIDE_PX)
            graph = draw_graph(mesh.positions, pairs, mask.masked, left, side_px=_SIDE_PX)
            words = f"{n} {of} edges keep both ends, each counted in both directions."
            figures += [
                draw_panel("Visible nodes", key, seen, f"{hidden:,} nodes are hidden; a cell with one is grey."),
                draw_panel("The remaining graph", key, graph, words),
            ]
        if steps:
            counts = sorted(Counter(mesh.kinds.tolist()).items())
            kinds = ", ".join(f"{count:,} {KINDS.get(kind, f'of type {kind}')}" for kind, count in counts)
            more.append(Fact(name="Nodes by type", value=kinds, plain=True))
        words = f"{plural(len(mesh.positions), 'node')}, {plural(len(mesh.cells), 'cell')}, {step}"
        return sample_card(batch, i, words, figures, {"": mask}, names=self.label_names, noun="nodes", more=more)

    def compared(self, batch: MeshBatch, made: MeshBatch, i: int) -> Card:
        """Draw the field, its visible part, and the field with the model's values at hidden nodes.

        Args:
            batch: The original batch.
            made: The reconstructed batch.
            i: Row.
        """
        if batch.mask is None:
            raise ValueError(
                "a reconstruction needs masked meshes, but the batch has no mask; pass mask= to the loader"
            )
        key, index, nodes = batch.key[i], find_sample(self.reader.manifest, batch.key[i]), get_mesh_nodes(batch, i)
        mesh, shown = self.reader.mesh(index), ShownField.of(self.reader, index)
        truth, completed = batch.state[nodes].numpy(), made.state[nodes].numpy()
        hidden, scale = batch.mask.masked[0, nodes].numpy(), shown.scale(truth)
        free = (batch.counts[nodes].numpy() > 0) & hidden
        error = float(np.sqrt(np.square((completed - truth)[free]).mean())) if free.any() else 0.0
        drawn = (("Original", truth, None), ("The encoder saw", truth, hidden), ("Reconstruction", completed, None))
        return Card(
            key=key,
            words=f"{shown.name}, step {int(batch.step[i])}; error {error:.3f} standard deviations at "
            f"{int(free.sum()):,} free nodes",
            figures=tuple(
                draw_panel(title, key, draw_fields(mesh, shown, fields, scale, gone)) for title, fields, gone in drawn
            ),
        )


def get_mesh_nodes(batch: MeshBatch, i: int) -> slice:
    """Return the nodes of mesh `i` of a batch.

    Args:
        batch: The batch.
        i: Number of the mesh in the batch.
    """
    return slice(*batch.node_offset[i : i + 2].tolist())


def draw_fields(
    mesh: StoredMesh, shown: ShownField, fields: Float32s, scale: Scale, hidden: Bools | None = None
) -> UInt8s:
    """Draw a mesh in the colours of its fields, uint8 (H, W, 3).

    Args:
        mesh: The mesh.
        shown: The drawn field.
        fields: Fields (V, D).
        scale: Numbers at the ends of the colour scale.
        hidden: Hidden nodes, bool (V,).
    """
    return draw_mesh(mesh.positions, mesh.cells, shown.colours(fields, scale), hidden=hidden)
