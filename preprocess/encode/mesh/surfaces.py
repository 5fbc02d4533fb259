"""Reads triangle meshes (OBJ, PLY, STL, OFF and GLB) with trimesh and checks them.

Polygons are triangulated, and the parts of a scene are merged in its coordinates. Vertices with equal float32 positions
are merged; then degenerate triangles and unused vertices are dropped. Everything else keeps the file's order. A file is
rejected if it is empty, truncated or cannot be parsed, if it has no triangle or a coordinate that is not finite, or if
a corner refers to a missing vertex.

Truncation of a text file shows only if the header declares the counts (OFF, PLY) or the file ends within a line. An OBJ
file that ends between two lines is read as a smaller mesh.

What a GLB file declares is summed before trimesh takes memory for it. An accessor may have no data, and is zeros then;
meshes may share data, and nodes may place a mesh many times, so a few hundred bytes can declare any size. Source: glTF
2.0, 3.6.2 (accessors), 3.5 (nodes), 4.4 (GLB).
"""

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.limits import MEMORY_PER_BYTE, read_source_file
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError

SURFACE_SUFFIXES = frozenset({".obj", ".ply", ".stl", ".off", ".glb"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """A triangle mesh: vertices float32 (V, 3), finite and distinct; faces int32 (F, 3) with three distinct corners.
    `n_merged` vertices were merged with others.
    """

    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    n_merged: int


def read_surface(path: Path) -> Surface:
    """Read a mesh file; its suffix names the format.

    Raises RejectError if the file cannot be used, DatasetError if trimesh is not installed.
    """
    kind = path.suffix.lower()
    if kind not in SURFACE_SUFFIXES:
        raise RejectError("open", f"{path.name} is no mesh file; use one of {', '.join(sorted(SURFACE_SUFFIXES))}")
    data = read_source_file(path)
    if kind == ".glb":
        check_glb(data)
    vertices, faces = _parsed(data, kind[1:])
    _check_length(data, kind, len(faces))
    return checked_surface(vertices, faces)


def checked_surface(vertices: npt.NDArray[Any], faces: npt.NDArray[Any]) -> Surface:
    """The surface of vertices (V, 3) and faces (F, 3), cleaned as above. Raises RejectError if it cannot be used."""
    if not len(faces):
        raise RejectError("decode", "has no faces: it is a point cloud or a truncated file")
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise RejectError("decode", f"has vertices of the shape {vertices.shape}; expected x, y and z of each")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise RejectError(
            "decode",
            f"a face has the corner {faces.min() if faces.min() < 0 else faces.max()}, but there are "
            f"{len(vertices)} vertices",
        )
    with np.errstate(over="ignore"):
        places = np.ascontiguousarray(vertices, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    if bad := int((~np.isfinite(places).all(axis=1)).sum()):
        raise RejectError("decode", f"{bad} of {len(places)} vertices have a coordinate that is not finite")
    first, same_as = _distinct(places)
    corners = same_as[faces]
    corners = corners[
        (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 2] != corners[:, 0])
    ]
    if not len(corners):
        raise RejectError("decode", f"all of its {len(faces)} faces have two equal corners")
    used = np.zeros(len(first), dtype=np.bool_)
    used[corners] = True
    number = np.cumsum(used) - 1
    return Surface(
        vertices=places[first[used]],
        faces=number[corners].astype(np.int32),
        n_merged=len(places) - len(first),
    )


def _parsed(data: bytes, kind: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Vertices (V, 3) and triangles (F, 3) as trimesh parses them. It gets the bytes, so it opens no other file."""
    try:
        import trimesh
    except ImportError as error:
        raise DatasetError("mesh files are read with trimesh: pip install 'maskstream[meshes]'") from error
    try:
        scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, process=False, skip_materials=True)
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise RejectError("decode", f"trimesh cannot parse it ({type(error).__name__}: {error})") from error
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    if not parts:
        return np.empty((0, 3)), np.empty((0, 3), dtype=np.int64)
    vertices = np.concatenate([np.asarray(part.vertices) for part in parts])
    return vertices, np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])


def _check_length(data: bytes, kind: str, n_triangles: int) -> None:
    """Raise RejectError if a text file holds fewer faces than its header declares, or ends within a face."""
    if kind == ".obj":
        last = data.rstrip().rsplit(b"\n", 1)[-1].split()
        if last[:1] == [b"f"] and len(last) < 4:
            raise RejectError("decode", "is cut short: its last face has fewer than three corners")
        return
    declared = _declared_faces(data, kind)
    if declared is not None and n_triangles < declared:
        raise RejectError(
            "decode", f"is truncated: its header declares {declared} faces, but it holds {n_triangles} triangles"
        )


def _declared_faces(data: bytes, kind: str) -> int | None:
    """The number of faces in the header of an OFF or PLY file; None for other formats or without a number."""
    if kind == ".ply":
        head = data[: data.find(b"end_header")].split(b"\n")
        counts = [line.split()[2] for line in head if line.split()[:2] == [b"element", b"face"]]
        return int(counts[0]) if counts else None
    if kind == ".off":
        words = [line.split(b"#")[0] for line in data[:4096].split(b"\n")]
        numbers = b" ".join(words).upper().split(b"OFF", 1)[-1].split()
        return int(numbers[1])
    return None


def _distinct(places: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct rows of float32 (V, 3): the index of the first of each, ascending, int64 (U,), and for each vertex
    the number of its distinct row, int64 (V,).
    """
    bits = places.view(np.uint32).astype(np.uint64)
    _, planar = np.unique(bits[:, 0] << np.uint64(32) | bits[:, 1], return_inverse=True)
    _, first, place = np.unique(
        planar.astype(np.uint64) << np.uint64(32) | bits[:, 2], return_index=True, return_inverse=True
    )
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[place]


_JSON = 0x4E4F534A
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_FEW_BYTES = 1 << 26


def check_glb(data: bytes) -> None:
    """Raise RejectError if the meshes of a file, as often as they are placed, take far more than its bytes."""
    try:
        length, kind = struct.unpack_from("<II", data, 12)
        if kind != _JSON:
            raise ValueError("its first chunk is no JSON")
        placed = _placed_bytes(json.loads(data[20 : 20 + length]))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error) as error:
        raise RejectError("open", f"is no GLB file, or damaged ({type(error).__name__}: {error})") from error
    if placed > (most := max(_FEW_BYTES, MEMORY_PER_BYTE * len(data))):
        raise RejectError("check", f"declares meshes of {placed} bytes in a file of {len(data)}; at most {most} may be")


def _placed_bytes(file: dict[str, Any]) -> int:
    """The bytes of all meshes, as often as nodes place them."""
    sizes: list[int] = [
        int(one["count"]) * _COMPONENTS[one["type"]] * _COMPONENT_BYTES[one["componentType"]]
        for one in file.get("accessors", ())
    ]
    meshes: list[int] = [
        sum(
            sizes[accessor]
            for part in mesh["primitives"]
            for accessor in (*part.get("attributes", {}).values(), *([part["indices"]] if "indices" in part else ()))
        )
        for mesh in file.get("meshes", ())
    ]
    nodes, below = file.get("nodes", []), dict[int, int]()
    for number in range(len(nodes)):
        _add_below(number, nodes, meshes, below)
    children = {child for node in nodes for child in node.get("children", ())}
    return sum(sizes) + sum(meshes) + sum(below[number] for number in range(len(nodes)) if number not in children)


def _add_below(number: int, nodes: list[Any], meshes: list[int], below: dict[int, int]) -> int:
    """The bytes of the meshes that a node and those below it place. Raises ValueError if it is below itself."""
    if below.setdefault(number, -1) >= 0:
        return below[number]
    node = nodes[number]
    own = meshes[node["mesh"]] if "mesh" in node else 0
    for child in node.get("children", ()):
        if below.get(child) == -1:
            raise ValueError(f"the node {child} is below itself")
        own += _add_below(child, nodes, meshes, below)
    below[number] = own
    return own
