"""Any folder of airborne or terrestrial laser scans (LAS or LAZ tiles), in the layouts of folder.py.

A tile of more than 131,072 points is cut into square blocks of about that many points, by the bounds in its header. One
block is one sample; blocks without points are rejected. A process caches up to 512 MB of decoded tiles (about 8 million
points with colours), so it decodes such a tile once for all its blocks. It decodes a larger tile again for each block;
split those first (PDAL's filters.splitter).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.encode.points.point_files import LAS_SUFFIXES, check_las_header, laspy_module
from maskstream.preprocess.source import Source

from .dataset import Dataset, reads_media
from .folder import folder

MAX_POINTS = 131_072


@reads_media
def las(root: Path) -> Dataset:
    """The splits of a folder of tiles. Raises DatasetError as `folder` does, and if laspy is not installed."""
    found = folder(root, name="las", encoder=PointEncoder(), suffixes=LAS_SUFFIXES, labelled=False)
    splits = {
        split: [block for source in sources for block in blocks(source, MAX_POINTS)]
        for split, sources in found.splits.items()
    }
    return replace(found, splits=splits)


def blocks(tile: Source, max_points: int) -> Iterator[Source]:
    """The tile's blocks of about `max_points` points; the tile itself if it is small or its header is unreadable."""
    laspy = laspy_module()
    try:
        check_las_header(tile.path)
        with laspy.open(tile.path) as reader:
            n, low, high = reader.header.point_count, reader.header.mins.tolist(), reader.header.maxs.tolist()
    except Exception:  # the encoder reads the header again and rejects the source with the reason
        yield tile
        return
    width, height = high[0] - low[0], high[1] - low[1]
    if n <= max_points or not 0 < width * height < math.inf:
        yield tile
        return
    side = math.sqrt(width * height * max_points / n)
    columns, rows = math.ceil(width / side), math.ceil(height / side)
    xs, ys = _edges(low[0], high[0], columns), _edges(low[1], high[1], rows)
    for i in range(columns):
        for j in range(rows):
            block = [xs[i], ys[j], xs[i + 1], ys[j + 1]]
            yield replace(tile, id=f"{tile.id}:{i}-{j}", meta={**tile.meta, "block": block})


def _edges(low: float, high: float, parts: int) -> list[float]:
    """The edges of the parts; the outer edges lie outside the bounds, because headers round them."""
    edges = [low + (high - low) * i / parts for i in range(parts + 1)]
    return [low - (high - low), *edges[1:-1], high + (high - low)]
