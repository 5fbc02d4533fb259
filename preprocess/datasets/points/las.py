"""Tiles of airborne or terrestrial scans of one's own: LAS and LAZ, laid out or listed as folder.py says.

A tile of more than 131,072 points is cut into square blocks of about so many, by the bounds that its header names; one
block is one sample, and blocks without a point are rejects. A process decodes a tile once for all of its blocks as long
as the tiles in hand take no more than 512 MB (about 8 million points with colours), and a larger tile once for each
block: cut those first (PDAL's filters.splitter).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ....shards.errors import DatasetError
from ...encode.points.encoder import PointEncoder
from ...encode.points.las_files import LAS_SUFFIXES, check_las_header
from ...source import Source
from ..dataset import Dataset
from ..folder import folder

MOST_POINTS = 131_072


def las(root: Path) -> Dataset:
    """The splits of a folder of tiles; DatasetError as for `folder`, and where laspy is not installed."""
    found = folder(root, name="las", encoder=PointEncoder(), suffixes=LAS_SUFFIXES)
    splits = {
        split: [block for source in sources for block in blocks(source, MOST_POINTS)]
        for split, sources in found.splits.items()
    }
    return replace(found, splits=splits)


def blocks(tile: Source, most_points: int) -> Iterator[Source]:
    """The tile's blocks of about `most_points` points; itself where it has no more, or its header cannot be read."""
    try:
        import laspy
    except ImportError as error:
        raise DatasetError("LAS files are read with laspy: pip install 'maskstream[points]'") from error
    try:
        check_las_header(tile.path)
        with laspy.open(tile.path) as reader:
            n, low, high = reader.header.point_count, reader.header.mins.tolist(), reader.header.maxs.tolist()
    except Exception:  # the encoder will meet it again, and rejects the source with its reason
        yield tile
        return
    width, height = high[0] - low[0], high[1] - low[1]
    if n <= most_points or not 0 < width * height < math.inf:
        yield tile
        return
    side = math.sqrt(width * height * most_points / n)
    columns, rows = math.ceil(width / side), math.ceil(height / side)
    xs, ys = _edges(low[0], high[0], columns), _edges(low[1], high[1], rows)
    for i in range(columns):
        for j in range(rows):
            block = [xs[i], ys[j], xs[i + 1], ys[j + 1]]
            yield replace(tile, id=f"{tile.id}:{i}-{j}", meta={**tile.meta, "block": block})


def _edges(low: float, high: float, parts: int) -> list[float]:
    """Where the parts begin and end; the outer edges lie a little outside, for headers round."""
    edges = [low + (high - low) * i / parts for i in range(parts + 1)]
    return [low - (high - low), *edges[1:-1], high + (high - low)]
