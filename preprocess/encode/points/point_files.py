"""Reads files of points (NPY, PLY, LAS, LAZ and text) and of meshes to sample points on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.mesh.surfaces import SURFACE_SUFFIXES, Surface, read_surface
from maskstream.preprocess.encode.source_file import check_source_file
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.npy import NpyError, read_npy

from .cloud import Cloud
from .las_files import LAS_SUFFIXES, Block, read_las

POINT_SUFFIXES = frozenset({".npy", ".ply"}) | LAS_SUFFIXES | SURFACE_SUFFIXES
TEXT_SUFFIX = ".txt"
"""Of the sets that publish clouds so. It is no suffix of points elsewhere, for lists have it too."""
_LEGAL = "points need an array (N, 3 or more) of real numbers"


def read_points(path: Path, block: Block | None = None) -> Cloud | Surface:
    """Read a cloud or a surface; the suffix names the format. `block` selects from a LAS tile.

    Raises RejectError if the file cannot be used, DatasetError if the library that reads it is not installed.
    """
    suffix = path.suffix.lower()
    check_source_file(path)
    if not path.stat().st_size:
        raise RejectError("open", "is empty: it has 0 bytes")
    if suffix == ".npy":
        return _npy(path)
    if suffix == TEXT_SUFFIX:
        return _text(path)
    if suffix in LAS_SUFFIXES:
        return read_las(path, block)
    if suffix == ".ply" and not _ply_has_faces(path):
        return _ply(path)
    if suffix in SURFACE_SUFFIXES:
        return read_surface(path)
    raise RejectError("open", f"{path.name} holds no points; use one of {', '.join(sorted(POINT_SUFFIXES))}")


def _text(path: Path) -> Cloud:
    """Read lines of 3 or more numbers with commas or spaces between; columns after x, y, z as of an array."""
    try:
        with path.open(encoding="ascii") as file:
            comma = "," if "," in file.readline() else None
        array = np.loadtxt(path, np.float64, delimiter=comma, ndmin=2)
    except ValueError as error:
        raise RejectError("open", f"is no text of numbers ({error})") from error
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    return _cloud(array)


def _npy(path: Path) -> Cloud:
    """Read an array (N, 3 or more) of numbers; columns after x, y, z are named feature 0, 1, ..."""
    try:
        array = read_npy(path.read_bytes())
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    except NpyError as error:
        raise RejectError("open", f"is no NPY file of points ({error}); {_LEGAL}") from error
    return _cloud(array)


def _cloud(array: npt.NDArray[Any]) -> Cloud:
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise RejectError("open", f"holds {array.dtype} {array.shape}; {_LEGAL}")
    names = tuple(f"feature {i}" for i in range(array.shape[1] - 3))
    return Cloud(points=array.astype(np.float64), columns=("x", "y", "z", *names))


def _ply_has_faces(path: Path) -> bool:
    """Whether the header declares faces; a PLY file without faces is a cloud."""
    try:
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    lines = head[: max(head.find(b"end_header"), 0)].splitlines()
    words = [line.split() for line in lines]
    return any(w[:2] == [b"element", b"face"] and w[2:] != [b"0"] for w in words)


def _ply(path: Path) -> Cloud:
    """Read a cloud, with colours in [0, 1] if it has any; other properties are left out."""
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
