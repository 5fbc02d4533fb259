"""The graph of a mesh: its nodes, and each edge of its cells in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """The directed graph of a mesh with E edges in d dimensions.

    edges: int64 (2, 2E), senders and receivers. The first E go from the lower to the higher node number, in ascending
    order; the other E are the same edges reversed. features: float32 (2E, d + 1), the vector from receiver to sender
    and its length.
    """

    edges: Int64s
    features: Float32s

    @property
    def sides(self) -> Int64s:
        """Each edge once, int64 (2, E), with the lower node number first."""
        return self.edges[:, : self.edges.shape[1] // 2]


def build_graph(positions: Float32s, cells: npt.NDArray[np.int32], length: float = 1.0) -> Graph:
    """The graph of cells, int32 (C, k), over nodes at `positions`, float32 (V, d).

    Cells are triangles (k = 3) or tetrahedra (k = 4). length: the unit of the edge features, in the positions' units.
    Raises ValueError if a cell names a node that does not exist.
    """
    from .kernels import both_ways, neighbour_rows

    cells = _checked(cells, positions)
    starts, found = neighbour_rows(cells, len(positions))
    edges, features = both_ways(starts, found, np.ascontiguousarray(positions, dtype=np.float32), 1 / length)
    return Graph(edges=edges, features=features)


def surface_normals(vertices: Float32s, faces: npt.NDArray[np.int32]) -> Float32s:
    """The unit normals of a surface's vertices, float32 (V, 3): the area-weighted mean of the faces' normals.

    vertices: float32 (V, 3). faces: int32 (F, 3). A vertex whose mean is 0 has the normal 0. Raises ValueError if a
    face names a vertex that does not exist.
    """
    from .kernels import vertex_normals

    faces = _checked(faces, vertices)
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise ValueError(f"vertices are (V, 3) and faces (F, 3), got {vertices.shape} and {faces.shape}")
    return vertex_normals(np.ascontiguousarray(vertices, np.float32), faces)


def _checked(cells: npt.NDArray[np.int32], positions: Float32s) -> npt.NDArray[np.int32]:
    """The cells for a kernel, which checks no bounds: int32 (C, k) in C order, of nodes that exist, else ValueError."""
    if cells.ndim != 2 or positions.ndim != 2:
        raise ValueError(f"cells are (C, k) and positions (V, d), got {cells.shape} and {positions.shape}")
    if cells.size and (cells.min() < 0 or cells.max() >= len(positions)):
        raise ValueError(f"cells name nodes {cells.min()} to {cells.max()}; legal are 0 to {len(positions) - 1}")
    return np.ascontiguousarray(cells, dtype=np.int32)
