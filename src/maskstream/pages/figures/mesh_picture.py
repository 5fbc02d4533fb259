"""Meshes as pictures: triangles in the colours of their corners, hidden nodes in grey.

Drawn of a mesh's numbers are the length of its first vector, its one channel, or a surface's normals.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipelines.modalities.mesh.read import MeshReader, MeshStatistics
from maskstream.shards.errors import DataError

from .pictures import Bool, UInt8

Float32s = npt.NDArray[np.float32]

MARGIN_PX = 4
_SUBPIXEL_BITS = 4
_HIDDEN = np.array([0x55, 0x55, 0x5A], dtype=np.float32)
_PAPER = 255
NODE, _EDGE, _GONE = (0x0B, 0x73, 0x94), (0x5F, 0xA8, 0xBD), (0xE2, 0xE5, 0xE8)
_VIEW = np.array([[0.86, -0.5, 0.0], [-0.25, -0.43, -0.87], [0.43, 0.75, -0.5]], dtype=np.float32)
"""The camera axes for meshes in space: right, down and forward, in the coordinates of the mesh."""


def field_colours(values: Float32s, low: float, high: float) -> UInt8:
    """Numbers float32 (V,) as RGB uint8 (V, 3): viridis from `low` to `high`."""
    level = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    coloured = cv2.applyColorMap((level * 255).astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(coloured[:, 0, ::-1])


def mesh_picture(
    positions: Float32s,
    cells: npt.NDArray[np.int32],
    colours: UInt8,
    *,
    hidden: Bool | None = None,
    side_px: int = 420,
) -> UInt8:
    """A picture uint8 (H, W, 3), its longer side `side_px`, of cells (C, 3 or 4) over nodes at float32 (V, 2 or 3).

    colours: uint8 (V, 3). hidden: bool (V,), nodes whose colour is not known: a cell with one is grey, and darker the
    more of its corners are hidden. In space farther cells are drawn first.
    """
    places, depth = _projected(positions)
    picture, pixels = _sheet(places, side_px)
    triangles = _triangles(cells)
    if depth is not None:
        triangles = triangles[np.argsort(-depth[triangles].mean(axis=1), kind="stable")]
    shades = colours.astype(np.float32)[triangles].mean(axis=1)
    if hidden is not None:
        share = hidden[triangles].mean(axis=1, keepdims=True)
        shades = np.where(share > 0, _HIDDEN + (1 - share) * 120, shades)
    for corners, shade in zip(pixels[triangles], shades.astype(np.uint8).tolist(), strict=True):
        cv2.fillConvexPoly(picture, corners, shade, cv2.LINE_AA, _SUBPIXEL_BITS)
    return picture


def graph_picture(
    positions: Float32s, edges: npt.NDArray[np.int64], hidden: Bool, left: Bool, *, side_px: int = 420
) -> UInt8:
    """A picture uint8 (H, W, 3), its longer side `side_px`, of a graph over nodes at float32 (V, 2 or 3).

    edges: int64 (2, E). left: bool (E,), the edges that are left, drawn over the others, which are pale. hidden: bool
    (V,), the nodes that are not drawn as dots.
    """
    places, _ = _projected(positions)
    picture, pixels = _sheet(places, side_px)
    for chosen, colour in ((~left, _GONE), (left, _EDGE)):
        lines = pixels[edges[:, chosen].T].reshape(-1, 2, 1, 2)
        cv2.polylines(picture, list(lines), False, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    for place in pixels[~hidden].tolist():
        cv2.circle(picture, place, 2 << _SUBPIXEL_BITS, NODE, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return picture


def _sheet(places: Float32s, side_px: int) -> tuple[UInt8, npt.NDArray[np.int32]]:
    """An empty picture whose longer side is `side_px`, and where places (V, 2) lie in it, in parts of a pixel."""
    low, high = places.min(axis=0), places.max(axis=0)
    scale = (side_px - 2 * MARGIN_PX) / max(float((high - low).max()), 1e-12)
    width, height = np.ceil((high - low) * scale + 2 * MARGIN_PX).astype(int).tolist()
    picture = np.full((max(height, 1), max(width, 1), 3), _PAPER, dtype=np.uint8)
    return picture, np.round(((places - low) * scale + MARGIN_PX) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _projected(positions: Float32s) -> tuple[Float32s, Float32s | None]:
    """Places in the picture's plane, y downwards, and in space how far each node is from the eye."""
    if positions.shape[1] == 2:
        return positions * np.array([1, -1], dtype=np.float32), None
    turned = positions @ _VIEW.T
    return turned[:, :2], turned[:, 2]


def _triangles(cells: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Cells as triangles; a tetrahedron as its four faces."""
    if cells.shape[1] == 3:
        return cells
    return np.concatenate([np.delete(cells, corner, axis=1) for corner in range(4)])


_NOTHING = 1e-4
_TAILS = ("_x", "_y", "_z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownField:
    """What is drawn of one mesh. `channels` are those whose length is shown; of a surface none, and its normals are
    colours.
    """

    statistics: MeshStatistics
    name: str
    channels: tuple[int, ...]

    @classmethod
    def of(cls, reader: MeshReader, index: int) -> Self:
        """Of sample `index`: the first field of its json's `field_names`. Raises SampleError if they are no names."""
        member = reader.manifest.member(index, "json")
        with reader.manifest.reading(index, "json"):
            described = json.loads(reader.manifest.store.read(*member))
            names = described.get("field_names", []) if isinstance(described, dict) else None
            if not isinstance(names, list) or (names and len(names) != len(reader.statistics.mean)):
                raise DataError(f"field_names are {names!r}, not the names of {len(reader.statistics.mean)} channels")
        names = [str(name) for name in names]
        if not names:
            return cls(statistics=reader.statistics, name="normals", channels=())
        stem = names[0].removesuffix(_TAILS[0])
        channels = tuple(i for i, name in enumerate(names) if name in (stem, *(stem + tail for tail in _TAILS)))
        said = f"length of {stem}" if len(channels) > 1 else stem
        return cls(statistics=reader.statistics, name=said, channels=channels)

    def values(self, fields: Float32s) -> Float32s:
        """Normalised fields (..., D) as the numbers that are drawn, (...), in the data's units."""
        chosen = list(self.channels)
        mean, deviation = (np.asarray(each)[chosen] for each in (self.statistics.mean, self.statistics.deviation))
        stored = fields[..., chosen] * deviation + mean
        values: Float32s = np.linalg.norm(stored, axis=-1) if len(chosen) > 1 else stored[..., 0]
        return values

    def scale(self, fields: Float32s) -> tuple[float, float] | None:
        """The numbers at the ends of the colours of such fields (..., D); None for normals."""
        if not self.channels:
            return None
        low, high = map(float, np.percentile(self.values(fields), (1, 99)))
        return (0.0 if abs(low) < _NOTHING * abs(high) else low), high

    def colours(self, fields: Float32s, scale: tuple[float, float] | None) -> UInt8:
        """Fields (V, D) as colours uint8 (V, 3)."""
        if scale is None:
            return ((np.clip(fields, -1, 1) + 1) * 127.5).astype(np.uint8)
        return field_colours(self.values(fields), *scale)
