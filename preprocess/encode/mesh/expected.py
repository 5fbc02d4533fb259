"""Count the triangles that text mesh files declare, because trimesh silently skips some when it reads them."""

import re
from typing import NamedTuple

import numpy as np

from maskstream.preprocess.encode.ply import check_ply_text, read_ply_header
from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Int64s


class Expected(NamedTuple):
    """The minimum number of triangles in a mesh file, and its parts that are not triangles."""

    triangles: int
    left_out: tuple[str, ...] = ()


_OBJ_FACE = re.compile(rb"^[ \t]*f[ \t]+([^#\r\n]*)", re.MULTILINE)
_OBJ_OTHERS = re.compile(rb"^[ \t]*(curv2?|l|p|surf)[ \t]", re.MULTILINE)
_OBJ_ZERO = re.compile(rb"(?<!\S)[+-]?0+(?![\d.])")


def count_obj(data: bytes) -> Expected:
    """Count the triangles of an OBJ file.

    Source: Wavefront, Object Files (.obj): corners are numbered from 1, or backwards from -1.

    Args:
        data: Bytes of the file.

    Raises:
        RejectError: A face has fewer than three corners, or a corner 0.
    """
    text = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    triangles = 0
    for found in _OBJ_FACE.finditer(text):
        corners = len(found[1].split())
        if corners < 3 or _OBJ_ZERO.search(found[1]):
            what = "the corner 0, but numbers start at 1" if corners >= 3 else f"{corners} corners, fewer than three"
            raise RejectError("decode", f"its face {found[0].strip()[:80].decode('latin-1')!r} has {what}")
        triangles += corners - 2
    return Expected(triangles, tuple(sorted({f"elements {found[1].decode()}" for found in _OBJ_OTHERS.finditer(text)})))


def count_off(data: bytes) -> Expected:
    """Count the triangles of an OFF file: OFF, the counts of vertices and faces, their lines. Raise RejectError for a
    face of fewer than three corners.
    """
    lines = [text for line in data.splitlines() if (text := line.split(b"#")[0].strip())]
    counts = b" ".join(lines[:2]).upper().split(b"OFF", 1)[-1].split()
    try:
        n_vertices, n_faces = int(counts[0]), int(counts[1])
        begin = n_vertices + (1 if len(lines[0].upper().removeprefix(b"OFF").split()) > 1 else 2)
        corners = [int(line.split(None, 1)[0]) for line in lines[begin : begin + n_faces]]
    except (ValueError, IndexError) as error:
        raise RejectError("open", f"is not an OFF file, or damaged ({type(error).__name__}: {error})") from error
    if len(corners) < n_faces:
        raise RejectError("decode", f"is truncated: its header declares {n_faces} faces, but it holds {len(corners)}")
    return Expected(_count_triangles(np.array(corners, np.int64)))


def count_ply(data: bytes) -> Expected:
    """Count the faces of a PLY file, or the triangles of a text one. Raise RejectError for numbers that do not fit
    their types, and for faces of fewer than three corners.
    """
    header = read_ply_header(data)
    others = tuple(f"element {one.name}" for one in header.elements if one.count and one.name not in ("vertex", "face"))
    if header.order:
        return Expected(header.count("face"), others)
    lists = check_ply_text(data, header)
    corners = next((lists[name] for name in ("face.vertex_indices", "face.vertex_index") if name in lists), None)
    if corners is None:
        return Expected(header.count("face"), others)
    return Expected(_count_triangles(corners), others)


def _count_triangles(corners: Int64s) -> int:
    """Count the triangles of polygons with these numbers of corners, (N,). Raise RejectError for fewer than three."""
    if (short := np.flatnonzero(corners < 3)).size:
        raise RejectError("decode", f"its face {short[0]} has {corners[short[0]]} corners, fewer than three")
    return int((corners - 2).sum())
