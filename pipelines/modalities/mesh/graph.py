"""The graph of a mesh: its nodes, and an edge in both directions for every side of a cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """edges int64 (2, 2E): senders and receivers, every side of the mesh once in each direction: the first E from the
    lower to the higher number, ascending, the others the same turned round. features float32 (2E, d + 1): from the
    receiver to the sender, and the distance.
    """

    edges: Int64s
    features: Float32s

    @property
    def sides(self) -> Int64s:
        """Every side once, int64 (2, E), the lower number first."""
        return self.edges[:, : self.edges.shape[1] // 2]


def build_graph(positions: Float32s, cells: npt.NDArray[np.int32], length: float = 1.0) -> Graph:
    """The graph of cells (C, k) over nodes at float32 (V, d); cells are triangles (k = 3) or tetrahedra (k = 4), all of
    whose corners are joined. Features are measured in units of `length`. ValueError for a corner that is no node.
    """
    from .kernels import both_ways, neighbour_rows

    cells = np.ascontiguousarray(cells, dtype=np.int32)
    if cells.size and (cells.min() < 0 or cells.max() >= len(positions)):
        raise ValueError(f"cells name the nodes {cells.min()} to {cells.max()}, but there are {len(positions)} nodes")
    starts, found = neighbour_rows(cells, len(positions))
    edges, features = both_ways(starts, found, np.ascontiguousarray(positions, dtype=np.float32), 1 / length)
    return Graph(edges=edges, features=features)


def surface_normals(vertices: Float32s, faces: npt.NDArray[np.int32]) -> Float32s:
    """Unit normals float32 (V, 3) at the vertices of a surface, those of its faces weighted by their areas."""
    from .kernels import vertex_normals

    return vertex_normals(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))
