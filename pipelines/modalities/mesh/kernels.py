"""Compiled loops over the cells of a mesh: edges, edge features and vertex normals."""

import numpy as np

from maskstream.shards.arrays import Float32s, Int32s, Int64s
from maskstream.shards.jit import kernel

_SMALL = 24
"""Rows of neighbours up to this length use insertion sort."""


@kernel
def list_neighbours(cells: Int32s, n_nodes: int) -> tuple[Int64s, Int32s]:
    """List the edges of cells, int32 (C, k), each once, as compressed sparse rows.

    Returns:
        Starts, int64 (n_nodes + 1,), and neighbours, int32 (E,). The neighbours of node i with a higher number are
            neighbours[starts[i] : starts[i + 1]], in ascending order.
    """
    corners = cells.shape[1]
    begin = np.zeros(n_nodes + 1, dtype=np.int64)
    for c in range(len(cells)):
        for i in range(corners):
            for j in range(i):
                begin[min(cells[c, i], cells[c, j]) + 1] += 1
    for node in range(n_nodes):
        begin[node + 1] += begin[node]
    found = np.empty(begin[n_nodes], dtype=np.int32)
    place = begin.copy()
    for c in range(len(cells)):
        for i in range(corners):
            for j in range(i):
                a, b = cells[c, i], cells[c, j]
                found[place[min(a, b)]] = max(a, b)
                place[min(a, b)] += 1
    starts = np.empty(n_nodes + 1, dtype=np.int64)
    written = 0
    for node in range(n_nodes):
        starts[node] = written
        row = found[begin[node] : begin[node + 1]]
        if len(row) > _SMALL:
            row.sort()
        else:
            for i in range(1, len(row)):
                value, at = row[i], i
                while at > 0 and row[at - 1] > value:
                    row[at] = row[at - 1]
                    at -= 1
                row[at] = value
        last = node
        for other in row:
            if other != last:
                found[written] = other
                written += 1
                last = other
    starts[n_nodes] = written
    return starts, found[:written].copy()


@kernel
def direct_both_ways(starts: Int64s, found: Int32s, places: Float32s, scale: float) -> tuple[Int64s, Float32s]:
    """Return the directed edges, int64 (2, 2E), and their features, float32 (2E, d + 1), as in `Graph`.

    Args:
        starts: Result of `list_neighbours`.
        found: Result of `list_neighbours`.
        places: float32 (V, d), node positions.
        scale: Factor of the features.
    """
    n, dims = len(found), places.shape[1]
    edges = np.empty((2, 2 * n), dtype=np.int64)
    features = np.empty((2 * n, dims + 1), dtype=np.float32)
    for node in range(len(starts) - 1):
        for e in range(starts[node], starts[node + 1]):
            other = found[e]
            edges[0, e], edges[1, e] = node, other
            edges[0, n + e], edges[1, n + e] = other, node
            square = np.float32(0)
            for d in range(dims):
                difference = (places[node, d] - places[other, d]) * np.float32(scale)
                features[e, d], features[n + e, d] = difference, -difference
                square += difference * difference
            features[e, dims] = features[n + e, dims] = np.sqrt(square)
    return edges, features


@kernel
def difference(vertices: Float32s, a: int, b: int) -> tuple[float, float, float]:
    """Return the vector from vertex a to vertex b, in float64."""
    return (
        np.float64(vertices[b, 0]) - vertices[a, 0],
        np.float64(vertices[b, 1]) - vertices[a, 1],
        np.float64(vertices[b, 2]) - vertices[a, 2],
    )


@kernel
def compute_vertex_normals(vertices: Float32s, faces: Int32s) -> Float32s:
    """Return the unit normals of the vertices, float32 (V, 3): area-weighted means of face normals, or 0."""
    sums = np.zeros((len(vertices), 3), dtype=np.float64)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = difference(vertices, a, b)
        vx, vy, vz = difference(vertices, a, c)
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            sums[corner, 0] += nx
            sums[corner, 1] += ny
            sums[corner, 2] += nz
    normals = np.zeros((len(vertices), 3), dtype=np.float32)
    for v in range(len(vertices)):
        length = np.sqrt(sums[v, 0] ** 2 + sums[v, 1] ** 2 + sums[v, 2] ** 2)
        if length > 0:
            for d in range(3):
                normals[v, d] = sums[v, d] / length
    return normals
