"""The columns of manifest.parquet and rejects.parquet, and how rows become them.

Every sample: `key`, `shard` (dictionary-encoded file name), `label` int64 (-1 for none), `source`. Every component NAME
of the split: `NAME.offset` and `NAME.size` int64 (bytes; offset of the data in the tar) and `NAME.xxh3_128` (16 bytes),
null in samples without it. Splits with video: `codec`, `fps`, `n_frames`, `width`, `height`, `header_size` and the
lists `gop_first_frame`, `gop_offset`, `gop_size`, `gop_lead` of `VideoIndex`, null in samples without video; splits
over tars that others wrote also have `table_offset` and `gop_packets`. Every fact (facts.py) that a sample has: a
column of its name, int64 or float64, null in samples without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa

from ..members.facts import FACTS
from .record import Row, ShardRecord
from .sample import Reject

FORMAT = "maskstream/1"

OFFSET, SIZE, DIGEST = ".offset", ".size", ".xxh3_128"
DIGEST_BYTES = 16

SAMPLE_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "shard": pa.dictionary(pa.int32(), pa.string()),
    "label": pa.int64(),
    "source": pa.string(),
}
COMPONENT_COLUMNS: dict[str, pa.DataType] = {OFFSET: pa.int64(), SIZE: pa.int64(), DIGEST: pa.binary(DIGEST_BYTES)}
VIDEO_COLUMNS: dict[str, pa.DataType] = {
    "codec": pa.dictionary(pa.int32(), pa.string()),
    "fps": pa.float64(),
    "n_frames": pa.int32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "header_size": pa.int64(),
}
GOP_COLUMNS: dict[str, pa.DataType] = {
    "gop_first_frame": pa.int32(),
    "gop_offset": pa.int64(),
    "gop_size": pa.int64(),
    "gop_lead": pa.int32(),
}
FACT_COLUMNS: dict[str, pa.DataType] = {
    name: pa.int64() if kind is int else pa.float64() for name, kind in FACTS.items()
}
TABLE_OFFSET, GOP_PACKETS = "table_offset", "gop_packets"
TABLE_COLUMNS: dict[str, pa.DataType] = {TABLE_OFFSET: pa.int64(), GOP_PACKETS: pa.int32()}
"""A number and a list, only where a packet table stands beside each shard."""


def manifest_table(shards: Sequence[ShardRecord]) -> pa.Table:
    """One row per sample, in the order of `shards` and of each tar."""
    rows = [row for shard in shards for row in shard.rows]
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.rows) for shard in shards])
    names = pa.array([shard.name for shard in shards], pa.string())
    columns: dict[str, pa.Array] = {
        "key": pa.array([row.key for row in rows], pa.string()),
        "shard": pa.DictionaryArray.from_arrays(pa.array(numbers), names),
        "label": pa.array([row.label for row in rows], pa.int64()),
        "source": pa.array([row.source for row in rows], pa.string()),
    }
    for name in sorted({name for row in rows for name in row.components}):
        spans = [row.components.get(name, (None, None, None)) for row in rows]
        for part, (ending, kind) in enumerate(COMPONENT_COLUMNS.items()):
            columns[name + ending] = pa.array([span[part] for span in spans], kind)
    if any(row.video is not None for row in rows):
        columns |= _video_columns(rows)
    used = {name for row in rows for name in row.facts}
    columns |= {n: pa.array([row.facts.get(n) for row in rows], kind) for n, kind in FACT_COLUMNS.items() if n in used}
    return pa.table(columns, metadata={"maskstream": FORMAT})


def _video_columns(rows: Sequence[Row]) -> dict[str, pa.Array]:
    videos = [row.video for row in rows]
    columns: dict[str, pa.Array] = {}
    tables = any(video is not None and video.foreign for video in videos)
    scalars = VIDEO_COLUMNS | ({TABLE_OFFSET: TABLE_COLUMNS[TABLE_OFFSET]} if tables else {})
    lists = GOP_COLUMNS | ({GOP_PACKETS: TABLE_COLUMNS[GOP_PACKETS]} if tables else {})
    for name, kind in scalars.items():
        values = [None if video is None else getattr(video, name) for video in videos]
        columns[name] = pa.array(values, kind)
    lengths = (0 if video is None else len(video.first_frame) for video in videos)
    starts = pa.array(accumulate(lengths, initial=0), pa.int32())
    absent = pa.array([video is None for video in videos], pa.bool_())
    for name, kind in lists.items():
        arrays = [getattr(video, name.removeprefix("gop_")) for video in videos if video is not None]
        columns[name] = pa.ListArray.from_arrays(starts, pa.array(np.concatenate(arrays), kind), mask=absent)
    return columns


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """One row per reject: source, stage, reason."""
    columns = {
        name: pa.array([getattr(r, name) for r in rejects], pa.string()) for name in ("source", "stage", "reason")
    }
    return pa.table(columns, metadata={"maskstream": FORMAT})
