"""Files of points and of surfaces, read as they are: NPY, PLY, LAS and LAZ clouds, and meshes to be sampled.

A cloud is read in float64: coordinates of a survey, millions of metres from their origin, lose their last centimetres
in float32 (points.py moves them first).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...shards.errors import DatasetError
from .ldraw import read_ldraw
from .reject import RejectError
from .surfaces import SURFACE_SUFFIXES, Surface, checked_surface, read_surface

LAS_SUFFIXES = frozenset({".las", ".laz"})
POINT_SUFFIXES = frozenset({".npy", ".ply"}) | LAS_SUFFIXES | SURFACE_SUFFIXES
LDRAW_SUFFIX = ".dat"

_LAS_NOISE = (7, 18)
"""Classes of points that are no surface, such as birds, by the ASPRS's table."""


_MOST_COMPRESSION = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloud:
    """Points as a file has them: float64 (N, columns), x, y, z first; `columns` names them; `n_dropped` were noise."""

    points: npt.NDArray[np.float64]
    columns: tuple[str, ...]
    n_dropped: int = 0


def read_points(path: Path) -> Cloud | Surface:
    """What is in a file, by the ending of its name. RejectError where it cannot be used, DatasetError where the library
    that reads it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _npy(path)
    if suffix in LAS_SUFFIXES:
        return read_las(path)
    if suffix == LDRAW_SUFFIX:
        corners = read_ldraw(path).reshape(-1, 3)
        return checked_surface(corners, np.arange(len(corners)).reshape(-1, 3))
    if suffix == ".ply" and not _ply_has_faces(path):
        return _ply(path)
    if suffix in SURFACE_SUFFIXES:
        return read_surface(path)
    raise RejectError("open", f"points come in {', '.join(sorted(POINT_SUFFIXES))}, got {path.name}")


def _npy(path: Path) -> Cloud:
    """An array (N, 3 or more) of numbers; what follows x, y, z is named feature 0, 1, ..."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that a false shape allocates nothing
    except (ValueError, OSError, EOFError, OverflowError) as error:
        raise RejectError("open", f"is no NPY file of numbers ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise RejectError("open", f"points are an array (N, 3 or more) of real numbers, got {_form(array)}")
    names = tuple(f"feature {i}" for i in range(array.shape[1] - 3))
    return Cloud(points=np.array(array, dtype=np.float64), columns=("x", "y", "z", *names))


def _form(array: Any) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__


def _ply_has_faces(path: Path) -> bool:
    """Whether the header announces a face; a PLY without one is a cloud."""
    try:
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    lines = head[: max(head.find(b"end_header"), 0)].splitlines()
    words = [line.split() for line in lines]
    return any(w[:2] == [b"element", b"face"] and w[2:] != [b"0"] for w in words)


def _ply(path: Path) -> Cloud:
    """A cloud with its colours, in [0, 1], where it has some; other properties are left out."""
    try:
        import trimesh
    except ImportError as error:
        raise DatasetError("PLY files are read with trimesh: pip install 'maskstream[points]'") from error
    try:
        scene = trimesh.load_scene(io.BytesIO(path.read_bytes()), file_type="ply", process=False)
        clouds = [part for part in scene.geometry.values() if isinstance(part, trimesh.PointCloud)]
        points = np.asarray(clouds[0].vertices, dtype=np.float64) if clouds else np.empty((0, 3))
        colours = np.asarray(clouds[0].colors) if clouds else np.empty((0, 4))
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise RejectError("decode", f"trimesh cannot parse it ({type(error).__name__}: {error})") from error
    if len(colours) != len(points):
        return Cloud(points=points, columns=("x", "y", "z"))
    joined = np.concatenate([points, colours[:, :3] / 255.0], axis=1)
    return Cloud(points=joined, columns=("x", "y", "z", "red", "green", "blue"))


def check_las_header(path: Path) -> None:
    """RejectError where the header of a LAS or LAZ file announces more than the file can hold.

    laspy believes it: a false number of records keeps it busy for hours. Fields as in the LAS specification 1.4.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(375)
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    if len(head) < 227 or head[:4] != b"LASF":
        raise RejectError("open", f"is no LAS file: it has {size} bytes and begins with {head[:4]!r}")
    header, begin, records = struct.unpack_from("<HII", head, 94)
    row_bytes, points = struct.unpack_from("<HI", head, 105)
    compressed = bool(head[104] & 0x80)
    if head[25] >= 4 and len(head) >= 375:
        extended_at, extended, points = struct.unpack_from("<QIQ", head, 235)
        if extended and extended_at + 60 * extended > size:
            raise RejectError("open", f"announces {extended} extended records in a file of {size} bytes")
    if header > begin or begin > size or 54 * records > begin - header:
        raise RejectError("open", f"announces {records} records between bytes {header} and {begin} of {size}")
    if points * row_bytes > (size - begin) * (_MOST_COMPRESSION if compressed else 1):
        raise RejectError("open", f"is cut short: {size} bytes cannot hold the {points} points that its header says")


@lru_cache(maxsize=1)
def read_las(path: Path) -> Cloud:
    """The points of a tile, with intensity and colours in [0, 1] and the class, less those of the classes of noise.

    The last tile is kept, for one that is cut into blocks is asked for again and again.
    """
    try:
        import laspy
    except ImportError as error:
        raise DatasetError("LAS files are read with laspy: pip install 'maskstream[points]'") from error
    check_las_header(path)
    try:
        with laspy.open(path) as reader:
            announced = reader.header.point_count
            tile = reader.read()
        names = set(tile.point_format.dimension_names)
        columns = {"x": tile.x, "y": tile.y, "z": tile.z, "intensity": np.asarray(tile.intensity) / 65535.0}
        if {"red", "green", "blue"} <= names:
            columns |= {name: np.asarray(tile[name]) / 65535.0 for name in ("red", "green", "blue")}
        columns["class"] = np.asarray(tile.classification)
        points = np.stack([np.asarray(column, dtype=np.float64) for column in columns.values()], axis=1)
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise RejectError("decode", f"laspy cannot read it ({type(error).__name__}: {error})") from error
    if len(points) < announced:
        raise RejectError("decode", f"is cut short: {len(points)} points of the {announced} that its header says")
    kept = ~np.isin(points[:, -1], _LAS_NOISE)
    return Cloud(points=points[kept], columns=tuple(columns), n_dropped=int((~kept).sum()))
