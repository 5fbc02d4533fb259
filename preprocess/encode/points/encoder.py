"""The encoder of point clouds: the member `points.npy`, float32 (N, 3 + features), with rows in random order.

Any range of rows is a random sample of the cloud, so a loader that needs 2,048 of a million points reads 2,048 rows.
The order, and the points sampled on a mesh, depend only on the source's id.

A cloud is rejected if it is empty, contains a number that is not finite, has only coincident points (or a single one),
or has an extent whose square overflows float32. A mesh is rejected if it has no faces or no area.

Points are read from files of points (LAS and LAZ here; all others in clouds.py), or sampled on meshes. The blocks of a
LAS or LAZ tile are samples of many shards, so a process reads the same tiles repeatedly. It keeps the most recently
used tiles, up to CACHE_BYTES of decoded points. A larger tile is decoded again for each block, CHUNK points at a time,
and only the points of the block are kept.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import xxhash

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.encode.mesh.surfaces import SURFACE_SUFFIXES, Surface, read_surface
from maskstream.preprocess.encode.ply import PLY_HEADER_BYTES, read_ply_header
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Float64s
from maskstream.shards.config import Config
from maskstream.shards.errors import DatasetError
from maskstream.shards.limits import PositiveInt
from maskstream.shards.members.arrays import make_points_member

from .clouds import ALIASES, UNUSED, XYZ, Cloud, read_array, read_e57, read_pcd, read_ply, read_text

LAS_SUFFIXES = frozenset({".las", ".laz"})
CACHE_BYTES = 1 << 29
CHUNK = 1 << 20

_NOISE = (7, 18)
"""Noise classes (such as birds) in the table of the ASPRS."""
_MAX_COMPRESSION = 1000

Block = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in the tile's coordinates; points at x_max or y_max belong to the next block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Points of a tile, including noise: float64 (N, columns); the last column is the class."""

    points: Float64s
    columns: tuple[str, ...]

    def inside(self, block: Block | None) -> Rows:
        """Return the rows in a block; all rows for None."""
        if block is None:
            return self
        x, y = self.points[:, 0], self.points[:, 1]
        chosen = (x >= block[0]) & (x < block[2]) & (y >= block[1]) & (y < block[3])
        return Rows(points=self.points[chosen], columns=self.columns)


def read_las(path: Path, block: Block | None = None) -> Cloud:
    """Read the points of a tile, or of one block, without noise. Intensity and colours are in [0, 1], followed by the
    class.

    Args:
        path: LAS or LAZ file.
        block: Bounds of the block; None for the whole tile.

    Raises:
        RejectError: The file is damaged.
        DatasetError: laspy is not installed.
    """
    rows = _TILES.rows(path, block)
    kept = ~np.isin(rows.points[:, -1], _NOISE)
    return Cloud(points=rows.points[kept], columns=rows.columns, n_dropped=int((~kept).sum()))


class TileCache:
    """The most recently used tiles, up to `max_bytes` of decoded points."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[tuple[Path, int, int], Rows] = OrderedDict()

    def rows(self, path: Path, block: Block | None) -> Rows:
        """Return the rows of a tile or of one block, including noise."""
        check_las_header(path)
        found = path.stat()
        key = (path, found.st_size, found.st_mtime_ns)
        if key in self._kept:
            self._kept.move_to_end(key)
        elif count_decoded_bytes(path) > self.max_bytes:
            return decode(path, block)
        else:
            self._keep(key, decode(path))
        return self._kept[key].inside(block)

    def _keep(self, key: tuple[Path, int, int], tile: Rows) -> None:
        self._kept[key] = tile
        while sum(rows.points.nbytes for rows in self._kept.values()) > self.max_bytes and len(self._kept) > 1:
            self._kept.popitem(last=False)


_TILES = TileCache()


def count_decoded_bytes(path: Path) -> int:
    """Return the memory of the points that a tile's header declares."""
    try:
        with import_laspy().open(path) as reader:
            return 8 * int(reader.header.point_count) * len(_list_columns(reader.header.point_format))
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise _make_unreadable_error(error) from error


def decode(path: Path, block: Block | None = None) -> Rows:
    """Decode a tile, or one block of it, chunk by chunk. Raise RejectError if points are missing."""
    try:
        with import_laspy().open(path) as reader:
            declared, columns = int(reader.header.point_count), _list_columns(reader.header.point_format)
            found, parts = 0, [np.empty((0, len(columns)))]
            for chunk in _split_into_chunks(reader, columns):
                found += len(chunk.points)
                parts.append(chunk.inside(block).points)
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise _make_unreadable_error(error) from error
    if found < declared:
        raise RejectError("decode", f"is truncated: it holds {found} of the {declared} points that its header declares")
    return Rows(points=np.concatenate(parts), columns=columns)


def _split_into_chunks(reader: Any, columns: tuple[str, ...]) -> Iterator[Rows]:
    for records in reader.chunk_iterator(CHUNK):
        named = [np.asarray(records[_NAMES.get(name, name)], dtype=np.float64) for name in columns]
        points = np.stack(named, axis=1)
        points[:, 3:-1] /= 65535.0
        yield Rows(points=points, columns=columns)


_NAMES = {"class": "classification"}
"""laspy's names of columns that differ from ours."""


def _list_columns(point_format: Any) -> tuple[str, ...]:
    colours = ("red", "green", "blue") if "red" in set(point_format.dimension_names) else ()
    return ("x", "y", "z", "intensity", *colours, "class")


def import_laspy() -> Any:
    """Return the module laspy. Raise DatasetError if it is not installed."""
    try:
        import laspy
    except ImportError as error:
        raise DatasetError("LAS files need laspy. Run `pip install 'maskstream[points]'`") from error
    return laspy


def _make_unreadable_error(error: Exception) -> Exception:
    if isinstance(error, DatasetError):
        return error
    return RejectError("decode", f"laspy cannot read it ({type(error).__name__}: {error})")


def check_las_header(path: Path) -> None:
    """Raise RejectError if the header of a LAS or LAZ file declares more than the file can hold.

    laspy trusts the header; a false number of records would keep it busy for hours. Fields: LAS specification 1.4.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(375)
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    if head[:4] != b"LASF":
        raise RejectError("open", f"is not a LAS file: it begins with {head[:4]!r}")
    if len(head) < 227:
        raise RejectError("open", f"is truncated: it has {size} bytes, but the header alone takes 227")
    header, begin, records = struct.unpack_from("<HII", head, 94)
    row_bytes, points = struct.unpack_from("<HI", head, 105)
    compressed = bool(head[104] & 0x80)
    if head[25] >= 4 and len(head) >= 375:
        extended_at, extended, points = struct.unpack_from("<QIQ", head, 235)
        if extended and extended_at + 60 * extended > size:
            raise RejectError("open", f"declares {extended} extended records in a file of {size} bytes")
    if header > begin or begin > size or 54 * records > begin - header:
        raise RejectError("open", f"declares {records} records between bytes {header} and {begin} of {size}")
    if points * row_bytes > (size - begin) * (_MAX_COMPRESSION if compressed else 1):
        raise RejectError(
            "open", f"is truncated: {size} bytes cannot hold the {points} points that its header declares"
        )
    if compressed and (chunks := _count_declared_chunks(path, begin, size)) > size:
        raise RejectError("open", f"declares {chunks} chunks in a file of {size} bytes")


def _count_declared_chunks(path: Path, begin: int, size: int) -> int:
    """Return the number of chunks that the table of a LAZ file declares, for which lazrs allocates memory at once; 0 if
    there is no table at the position stored at the start of its points, `begin`.
    """
    with path.open("rb") as file:
        file.seek(begin)
        at = int.from_bytes(file.read(8), "little", signed=True)
        if not begin < at < size:
            return 0
        file.seek(at + 4)
        return int.from_bytes(file.read(4), "little")


_READERS: Mapping[str, Callable[[Path], Cloud]] = {".pcd": read_pcd, ".ply": read_ply, ".e57": read_e57}
_NAMELESS: Mapping[str, Callable[[Path, Sequence[str]], Cloud]] = {
    ".npy": read_array,
    **dict.fromkeys((".xyz", ".pts", ".txt"), read_text),
}
"""Readers of formats whose columns may have no names."""
TEXT_SUFFIX = ".txt"
"""Only read for datasets that publish clouds this way, or if requested: lists and notes have this suffix too."""
POINT_SUFFIXES = frozenset({*_READERS, *_NAMELESS} - {TEXT_SUFFIX}) | LAS_SUFFIXES | SURFACE_SUFFIXES


def read_points(path: Path, block: Block | None = None, names: Sequence[str] = ()) -> Cloud | Surface:
    """Read a cloud or a surface.

    Args:
        path: File whose suffix names the format.
        block: Block of a LAS tile; None for the whole file.
        names: Names of the columns if the file has none.

    Raises:
        RejectError: The file cannot be used.
        DatasetError: The library that reads it is not installed.
    """
    suffix = path.suffix.lower()
    check_source_file(path)
    if not path.stat().st_size:
        raise RejectError("open", "is empty: it has 0 bytes")
    with np.errstate(invalid="ignore", over="ignore"):  # non-finite values are detected afterwards
        if suffix in _NAMELESS:
            return _NAMELESS[suffix](path, names)
        if suffix in _READERS and not (suffix == ".ply" and _has_ply_faces(path)):
            return _READERS[suffix](path)
    if suffix in LAS_SUFFIXES:
        return read_las(path, block)
    if suffix in SURFACE_SUFFIXES:
        return read_surface(path)
    raise RejectError("open", f"{path.name} is not a file of points; use one of {', '.join(sorted(POINT_SUFFIXES))}")


def _has_ply_faces(path: Path) -> bool:
    """Return whether the header declares faces; a PLY file without faces is a cloud."""
    try:
        with path.open("rb") as file:
            head = file.read(PLY_HEADER_BYTES)
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    return read_ply_header(head).count("face") > 0


PUBLISHED_ORDER = "published"
"""The value of a source's meta["rows"] that keeps the order of the rows: the publisher shuffled them, and papers refer
to the first 10,000."""

POINT_SUMS = "points"
"""Name of the sums over all points: the count, x, y, z, and x^2 + y^2 + z^2."""

_FAR = 64.0
"""A cloud farther from the origin than this many times its extent is moved."""
_EXTENTS = (1e-15, 1e15)


Axis = Literal["x", "y", "z"]
_MADE: tuple[type[Surface | Cloud], ...] = (Surface, Cloud)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointEncoder(Config):
    """Encodes clouds with all their points, and meshes as points that are uniform over the area.

    Attributes:
        surface_points: Number of points to sample on a mesh.
        columns: Names of the columns of files that do not name them (NPY, XYZ, PTS, text), as described in clouds.py.
        up: Axis that points upwards, around which `PointAugment(rotate="up")` rotates; None if it is unknown. It moves
            no point.
    """

    modality: ClassVar[str] = "points"

    surface_points: PositiveInt = 8192
    columns: tuple[str, ...] = ()
    up: Axis | None = None

    def validate(self) -> None:
        if self.columns and not {*XYZ} <= {*self.columns}:
            raise ValueError(
                f"columns must name all columns of a file, including x, y and z, such as ['x', 'y', 'z', 'red', "
                f"'green', 'blue', '{UNUSED}']; got {list(self.columns)}. Standard names are {', '.join(ALIASES)}; "
                f"others keep their name, and {UNUSED} is dropped"
            )

    @property
    def profile(self) -> str:
        """The only profile: points."""
        return "points"

    def encode(self, source: Source) -> Encoded:
        """Encode a cloud or a mesh.

        Args:
            source: Source to encode. meta["block"] (x_min, y_min, x_max, y_max) selects from a tile; `window` is in
                rows; `made_by` creates a `Surface` or a `Cloud`.

        Raises:
            RejectError: The cloud or mesh cannot be used.
        """
        made = made_of(source, *_MADE)
        found = read_points(source.path, source.meta.get("block"), self.columns) if made is None else made
        rng = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(source.id.encode())))
        facts: dict[str, Any] = {}
        if isinstance(found, Surface):
            cloud = Cloud(points=surface_sample(found, self.surface_points, rng), columns=XYZ)
            facts["faces"] = len(found.faces)
            left_out = found.left_out
        else:
            cloud = found
            facts["noise_dropped"] = cloud.n_dropped
            facts |= {"invalid_dropped": cloud.n_invalid} if cloud.n_invalid else {}
            left_out = cloud.left_out
        facts |= {"left_out": list(left_out)} if left_out else {}
        points = cloud.points if source.window is None else cloud.points[slice(*source.window)]
        check_points(points)
        points, origin = _recentre_points(points)
        stored = points.astype(np.float32).astype(np.float64)[:, :3]
        if source.meta.get("rows") != PUBLISHED_ORDER and not isinstance(found, Surface):
            points = points[rng.permutation(len(points))]
        return Encoded(
            members={"points.npy": make_points_member(points, cloud.columns)},
            meta={"n_points": len(points), "columns": list(cloud.columns), "origin": origin, **facts},
            sums={POINT_SUMS: [float(len(stored)), *stored.sum(axis=0).tolist(), float(np.square(stored).sum())]},
        )


def surface_sample(surface: Surface, count: int, rng: np.random.Generator) -> Float64s:
    """Sample points on a surface, uniform over its area.

    Args:
        surface: Triangle mesh.
        count: Number of points.
        rng: Random generator.

    Returns:
        float64 (count, 3).

    Raises:
        RejectError: The surface has no area.
    """
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    area = float(mesh.area)
    if not 0 < area < np.inf:
        raise RejectError("check", f"the surface has the area {area}, so no points can be sampled on it")
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=rng)
    return np.asarray(points, dtype=np.float64)


def check_points(points: Float64s) -> None:
    """Raise RejectError for a cloud (N, 3 or more) that the module's docstring excludes."""
    if not len(points):
        raise RejectError("check", "has no points")
    if bad := int((~np.isfinite(points).all(axis=1)).sum()):
        raise RejectError("check", f"{bad} of {len(points)} points have a number that is not finite")
    with np.errstate(over="ignore"):
        extent = float(np.ptp(points[:, :3], axis=0).max())
    if extent == 0:
        raise RejectError("check", f"all {len(points)} points coincide" if len(points) > 1 else "has a single point")
    if not _EXTENTS[0] < extent < _EXTENTS[1] or np.abs(points).max() > np.finfo(np.float32).max:
        raise RejectError("check", f"has the extent {extent:g}; it must be {_EXTENTS[0]:g} to {_EXTENTS[1]:g}")


def _recentre_points(points: Float64s) -> tuple[Float64s, list[float]]:
    """Return the points and their origin. Points so far from 0 that float32 would lose their shape are moved: their
    minimum becomes the origin.
    """
    low = points[:, :3].min(axis=0)
    if np.abs(points[:, :3]).max() <= _FAR * np.ptp(points[:, :3], axis=0).max():
        return points, [0.0, 0.0, 0.0]
    moved = points.copy()
    moved[:, :3] -= low
    return moved, low.tolist()
