"""Reads parts of the LDraw library as triangle meshes.

A part is a text file. A line of type 1 places another file with a 3 x 4 transform; types 3 and 4 are a triangle and a
quadrilateral; other lines are comments and edges. File names are relative to the library's folders parts and p, with \\
between folders. Source: the file format specification 1.0.2 of ldraw.org.
"""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import xxhash

from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.encode.mesh.surfaces import Surface, check_surface
from maskstream.preprocess.encode.points.clouds import XYZ, Cloud
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Float64s, Int64s

_MAX_DEPTH = 32


def read_ldraw_surface(source: Source) -> Surface:
    """Return the surface of a part. Raises RejectError if it cannot be used."""
    check_source_file(source.path)
    corners = read_ldraw(source.path).reshape(-1, 3)
    return check_surface(corners, np.arange(len(corners)).reshape(-1, 3))


def read_ldraw(part: Path) -> Float64s:
    """Return the triangles of a part, float64 (T, 3, 3): one corner per row, in LDraw units of 0.4 mm.

    `part` is in the library's folder parts. LDraw's y axis points down; the part is rotated by 180 degrees about x, so
    that y points up. Raises RejectError if a file is missing or a line cannot be parsed.
    """
    return _triangles(part, part.parent.parent, 0)[0] * (1.0, -1.0, -1.0)


BODY, STUD, TUBE = range(3)
_TUBE = re.compile(r"(\d+-\d+)?stu[dg](3|4|8|12|16)")
_STUD = re.compile(r"(\d+-\d+)?stu[dg]")
SAMPLED = 4096
"""Number of points of a part by which its pieces are distinguished."""


def ldraw_parts(source: Source) -> Cloud:
    """Return SAMPLED points of a part, uniform over its area. The column `part` is 3 times the source's label, plus 1
    on studs and 2 on the tubes below, according to the library's names of the files that it places.
    """
    import trimesh

    check_source_file(source.path)
    corners, kinds = _triangles(source.path, source.path.parent.parent, 0)
    mesh = trimesh.Trimesh((corners * (1.0, -1.0, -1.0)).reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3))
    if not 0 < float(mesh.area) < np.inf:
        raise RejectError("check", "has no area")
    rng = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(source.id.encode())))
    points, face = trimesh.sample.sample_surface(mesh, SAMPLED, seed=rng)
    part = 3 * source.label + kinds[face]
    return Cloud(points=np.concatenate([points, part[:, None]], axis=1), columns=(*XYZ, "part"))


@lru_cache(maxsize=4096)
def _triangles(file: Path, library: Path, depth: int) -> tuple[Float64s, Int64s]:
    """Return the triangles of a file, float64 (T, 3, 3), and the piece of each, int64 (T,): BODY, STUD or TUBE."""
    if depth > _MAX_DEPTH:
        raise RejectError("decode", f"{file.name} includes itself, or files are nested more than {_MAX_DEPTH} deep")
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise RejectError("open", f"{file} cannot be read: {error.strerror}") from error
    found: list[tuple[Float64s, Int64s]] = [(np.empty((0, 3, 3)), np.empty(0, np.int64))]
    for number, line in enumerate(lines, start=1):
        words = line.split()
        try:
            if words[:1] == ["1"]:
                found.append(_place_triangles(words, library, depth))
            elif words[:1] == ["3"]:
                found.append(_plain(_list_corners(words[2:11])))
            elif words[:1] == ["4"]:
                found.append(_plain(_list_corners(words[2:14])[0][[[0, 1, 2], [0, 2, 3]]]))
        except (ValueError, IndexError) as error:
            raise RejectError("decode", f"line {number} of {file.name} is not valid LDraw: {line!r}") from error
    own = TUBE if _TUBE.match(file.name) else STUD if _STUD.match(file.name) else BODY
    triangles, kinds = (np.concatenate(some) for some in zip(*found, strict=True))
    return triangles, kinds if own == BODY else np.full_like(kinds, own)


def _plain(triangles: Float64s) -> tuple[Float64s, Int64s]:
    return triangles, np.full(len(triangles), BODY)


def _list_corners(words: list[str]) -> Float64s:
    """Return the corners of one polygon, (1, corners, 3)."""
    corners = np.array(words, dtype=np.float64).reshape(1, -1, 3)
    if corners.shape[1] < 3:
        raise ValueError(words)
    return corners


def _place_triangles(words: list[str], library: Path, depth: int) -> tuple[Float64s, Int64s]:
    """Return the transformed triangles of the file that a line of type 1 places, and the piece of each."""
    transform = np.array(words[2:14], dtype=np.float64)
    if len(words) < 15:
        raise ValueError(words)
    name = " ".join(words[14:]).replace("\\", "/").lower()
    below = (library / folder / name for folder in ("parts", "p"))
    path = None if ".." in name or name.startswith("/") else next((path for path in below if path.is_file()), None)
    if path is None:
        raise RejectError("open", f"the library has no {name}")
    triangles, kinds = _triangles(path, library, depth + 1)
    return triangles @ transform[3:].reshape(3, 3).T + transform[:3], kinds
