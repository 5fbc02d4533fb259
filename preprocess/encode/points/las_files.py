"""LAS and LAZ tiles, whole or a block of one, with as little decoding as memory allows.

The blocks of a tile are samples of many shards, so a process is asked for the same tiles again and again. The tiles
used last are kept, up to CACHE_BYTES of decoded points in a process. A tile that is larger than that is decoded anew
for each block, CHUNK points at a time, of which only those in the block are held.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....shards.errors import DatasetError
from ..reject import RejectError
from .cloud import Cloud

LAS_SUFFIXES = frozenset({".las", ".laz"})
CACHE_BYTES = 1 << 29
CHUNK = 1 << 20

_NOISE = (7, 18)
"""Classes of points that are no surface, such as birds, by the ASPRS's table."""
_MOST_COMPRESSION = 1000

Float64s = npt.NDArray[np.float64]
Block = tuple[float, float, float, float]
"""x and y from, then x and y to, in the tile's coordinates; what lies on the far edges belongs to the next block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Points of a tile, those of noise too: float64 (N, columns), the class last."""

    points: Float64s
    columns: tuple[str, ...]

    def inside(self, block: Block | None) -> Rows:
        """Those in a block; all of them for None."""
        if block is None:
            return self
        x, y = self.points[:, 0], self.points[:, 1]
        chosen = (x >= block[0]) & (x < block[2]) & (y >= block[1]) & (y < block[3])
        return Rows(points=self.points[chosen], columns=self.columns)


def read_las(path: Path, block: Block | None = None) -> Cloud:
    """The points of a tile or of a block of it, with intensity and colours in [0, 1] and the class, less those of the
    classes of noise. RejectError where the file is damaged, DatasetError where laspy is not installed.
    """
    rows = _TILES.rows(path, block)
    kept = ~np.isin(rows.points[:, -1], _NOISE)
    return Cloud(points=rows.points[kept], columns=rows.columns, n_dropped=int((~kept).sum()))


class TileCache:
    """The tiles used last, up to `most_bytes` of decoded points."""

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[tuple[Path, int, int], Rows] = OrderedDict()

    def rows(self, path: Path, block: Block | None) -> Rows:
        """What `read_las` returns, with the points of noise."""
        check_las_header(path)
        found = path.stat()
        key = (path, found.st_size, found.st_mtime_ns)
        if key in self._kept:
            self._kept.move_to_end(key)
        elif decoded_bytes(path) > self.most_bytes:
            return decode(path, block)
        else:
            self._keep(key, decode(path))
        return self._kept[key].inside(block)

    def _keep(self, key: tuple[Path, int, int], tile: Rows) -> None:
        self._kept[key] = tile
        while sum(rows.points.nbytes for rows in self._kept.values()) > self.most_bytes and len(self._kept) > 1:
            self._kept.popitem(last=False)


_TILES = TileCache()


def decoded_bytes(path: Path) -> int:
    """How much memory the points take that a tile's header announces."""
    try:
        with _laspy().open(path) as reader:
            return 8 * int(reader.header.point_count) * len(_columns(reader.header.point_format))
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise _unreadable(error) from error


def decode(path: Path, block: Block | None = None) -> Rows:
    """The points of a tile, or of one block of it; a chunk of them at a time is decoded."""
    try:
        with _laspy().open(path) as reader:
            announced, columns = int(reader.header.point_count), _columns(reader.header.point_format)
            found, parts = 0, [np.empty((0, len(columns)))]
            for chunk in _chunks(reader, columns):
                found += len(chunk.points)
                parts.append(chunk.inside(block).points)
    except Exception as error:  # parsers of damaged files raise nearly everything
        raise _unreadable(error) from error
    if found < announced:
        raise RejectError("decode", f"is cut short: {found} points of the {announced} that its header says")
    return Rows(points=np.concatenate(parts), columns=columns)


def _chunks(reader: Any, columns: tuple[str, ...]) -> Iterator[Rows]:
    for records in reader.chunk_iterator(CHUNK):
        named = [np.asarray(records[_NAMES.get(name, name)], dtype=np.float64) for name in columns]
        points = np.stack(named, axis=1)
        points[:, 3:-1] /= 65535.0
        yield Rows(points=points, columns=columns)


_NAMES = {"class": "classification"}
"""What laspy calls a column, where that is not our name for it."""


def _columns(point_format: Any) -> tuple[str, ...]:
    colours = ("red", "green", "blue") if "red" in set(point_format.dimension_names) else ()
    return ("x", "y", "z", "intensity", *colours, "class")


def _laspy() -> Any:
    try:
        import laspy
    except ImportError as error:
        raise DatasetError("LAS files are read with laspy: pip install 'maskstream[points]'") from error
    return laspy


def _unreadable(error: Exception) -> Exception:
    if isinstance(error, DatasetError):
        return error
    return RejectError("decode", f"laspy cannot read it ({type(error).__name__}: {error})")


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
    if head[:4] != b"LASF":
        raise RejectError("open", f"is no LAS file: it begins with {head[:4]!r}")
    if len(head) < 227:
        raise RejectError("open", f"is cut short: it has {size} bytes, and the header alone takes 227")
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
