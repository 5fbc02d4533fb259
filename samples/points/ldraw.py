"""Reads parts of the LDraw library as triangle meshes.

A part is a text file. A line of type 1 places another file with a 3 x 4 transform; types 3 and 4 are a triangle and a
quadrilateral; other lines are comments and edges. File names are relative to the library's folders parts and p, with \\
between folders. Source: the file format specification 1.0.2 of ldraw.org.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.encode.mesh.surfaces import Surface, checked_surface
from maskstream.preprocess.source import RejectError, Source

Float64 = npt.NDArray[np.float64]

_MAX_DEPTH = 32


def ldraw_surface(source: Source) -> Surface:
    """The surface of a part. Raises RejectError if it cannot be used."""
    check_source_file(source.path)
    corners = read_ldraw(source.path).reshape(-1, 3)
    return checked_surface(corners, np.arange(len(corners)).reshape(-1, 3))


def read_ldraw(part: Path) -> Float64:
    """The triangles of a part, float64 (T, 3, 3): one corner per row, in LDraw units of 0.4 mm.

    `part` is in the library's folder parts. LDraw's y axis points down; the part is rotated by 180 degrees about x, so
    that y points up. Raises RejectError if a file is missing or a line cannot be parsed.
    """
    return _triangles(part, part.parent.parent, 0) * (1.0, -1.0, -1.0)


@lru_cache(maxsize=4096)
def _triangles(file: Path, library: Path, depth: int) -> Float64:
    if depth > _MAX_DEPTH:
        raise RejectError("decode", f"{file.name} places itself, or files are nested more than {_MAX_DEPTH} deep")
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise RejectError("open", f"{file} cannot be read: {error.strerror}") from error
    found: list[Float64] = [np.empty((0, 3, 3))]
    for number, line in enumerate(lines, start=1):
        words = line.split()
        try:
            if words[:1] == ["1"]:
                found.append(_placed(words, library, depth))
            elif words[:1] == ["3"]:
                found.append(_corners(words[2:11]))
            elif words[:1] == ["4"]:
                found.append(_corners(words[2:14])[0][[[0, 1, 2], [0, 2, 3]]])
        except (ValueError, IndexError) as error:
            raise RejectError("decode", f"line {number} of {file.name} is no valid LDraw: {line!r}") from error
    return np.concatenate(found)


def _corners(words: list[str]) -> Float64:
    """The corners of one polygon, (1, corners, 3)."""
    corners = np.array(words, dtype=np.float64).reshape(1, -1, 3)
    if corners.shape[1] < 3:
        raise ValueError(words)
    return corners


def _placed(words: list[str], library: Path, depth: int) -> Float64:
    """The transformed triangles of the file that a line of type 1 places."""
    transform = np.array(words[2:14], dtype=np.float64)
    if len(words) < 15:
        raise ValueError(words)
    name = " ".join(words[14:]).replace("\\", "/").lower()
    below = (library / folder / name for folder in ("parts", "p"))
    path = None if ".." in name or name.startswith("/") else next((path for path in below if path.is_file()), None)
    if path is None:
        raise RejectError("open", f"the library has no {name}")
    return _triangles(path, library, depth + 1) @ transform[3:].reshape(3, 3).T + transform[:3]
