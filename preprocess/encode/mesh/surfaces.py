"""Read triangle meshes (OBJ, PLY, STL, OFF and GLB) with trimesh and check them.

Polygons are triangulated, and the parts of a scene are merged in its coordinates. Vertices with equal float32 positions
are merged; then degenerate triangles and unused vertices are dropped. Everything else keeps the order of the file. A
file is rejected if it is empty, truncated or cannot be parsed, if it has no triangle or a coordinate that is not
finite, or if a corner refers to a missing vertex.

trimesh skips faces and parts that it does not support, so their triangles are counted first (expected.py, glb.py).
Truncation of a text file is only detected if the header declares the counts (OFF, PLY) or the file ends within a line.
An OBJ file that ends between two lines is read as a smaller mesh.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.limits import read_source_file
from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float32s, Int32s, Int64s
from maskstream.shards.errors import DatasetError

from .expected import Expected, count_obj, count_off, count_ply
from .glb import count_glb

SURFACE_SUFFIXES = frozenset({".obj", ".ply", ".stl", ".off", ".glb"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """A triangle mesh.

    Attributes:
        vertices: Finite and distinct, float32 (V, 3).
        faces: Three distinct corners each, int32 (F, 3).
        n_merged: Number of vertices that were merged with others.
        left_out: Parts of the file that are not triangles.
    """

    vertices: Float32s
    faces: Int32s
    n_merged: int
    left_out: tuple[str, ...] = ()


def read_surface(path: Path) -> Surface:
    """Read a mesh file.

    Args:
        path: File whose suffix names the format.

    Raises:
        RejectError: The file cannot be used.
        DatasetError: trimesh is not installed.
    """
    kind = path.suffix.lower()
    if kind not in SURFACE_SUFFIXES:
        raise RejectError("open", f"{path.name} is not a mesh file; use one of {', '.join(sorted(SURFACE_SUFFIXES))}")
    data = read_source_file(path)
    if kind == ".obj":  # trimesh passes over lines that are indented, or have tabs between words
        data = re.sub(rb"(?m)^ +", b"", data.replace(b"\t", b" "))
    expected = _EXPECTED[kind](data)
    vertices, faces = _parse_with_trimesh(data, kind[1:])
    if len(faces) < expected.triangles:
        raise RejectError(
            "decode", f"is truncated or damaged: it declares {expected.triangles} triangles, but holds {len(faces)}"
        )
    return replace(check_surface(vertices, faces), left_out=expected.left_out)


def check_surface(vertices: npt.NDArray[Any], faces: npt.NDArray[Any]) -> Surface:
    """Return the surface of vertices (V, 3) and faces (F, 3), cleaned as described above. Raise RejectError if it
    cannot be used.
    """
    if not len(faces):
        raise RejectError("decode", "has no faces: it is a point cloud or a truncated file")
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise RejectError("decode", f"has vertices of the shape {vertices.shape}; expected x, y and z for each")
    _check_corners(vertices, faces)
    with np.errstate(over="ignore"):
        places = np.ascontiguousarray(vertices, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    if bad := int((~np.isfinite(places).all(axis=1)).sum()):
        raise RejectError("decode", f"{bad} of {len(places)} vertices have a coordinate that is not finite")
    first, same_as = _find_distinct(places)
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


def _check_corners(vertices: npt.NDArray[Any], faces: npt.NDArray[Any]) -> None:
    """Raise RejectError for a corner that is not one of the vertices."""
    if faces.min() < 0 or faces.max() >= len(vertices):
        corner = faces.min() if faces.min() < 0 else faces.max()
        raise RejectError("decode", f"a face has the corner {corner}, but there are {len(vertices)} vertices")


def _parse_with_trimesh(data: bytes, kind: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Parse vertices (V, 3) and triangles (F, 3) with trimesh. It receives the bytes, so it opens no other file."""
    try:
        import trimesh
    except ImportError as error:
        raise DatasetError("mesh files need trimesh. Run `pip install 'maskstream[meshes]'`") from error
    try:
        scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, process=False, skip_materials=True)
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except Exception as error:  # for damaged files, parsers raise almost any exception
        raise RejectError("decode", f"trimesh cannot parse it ({type(error).__name__}: {error})") from error
    for part in parts:
        _check_corners(part.vertices, part.faces)
        if not np.ptp(part.vertices[part.faces], axis=1).any():
            raise RejectError("decode", f"all {len(part.faces)} faces of a part have coincident corners")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    if not parts:
        return np.empty((0, 3)), np.empty((0, 3), dtype=np.int64)
    vertices = np.concatenate([np.asarray(part.vertices) for part in parts])
    return vertices, np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])


_EXPECTED: Mapping[str, Callable[[bytes], Expected]] = {
    ".obj": count_obj,
    ".off": count_off,
    ".ply": count_ply,
    ".stl": lambda data: Expected(0),
    ".glb": count_glb,
}


def _find_distinct(places: Float32s) -> tuple[Int64s, Int64s]:
    """Return the distinct rows of float32 (V, 3): the index of the first of each, ascending, int64 (U,), and the number
    of the distinct row of each vertex, int64 (V,).
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
