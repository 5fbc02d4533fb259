"""Splits of any size for measurements, made from one real shard."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import track

from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.columns import DIGEST, DIGEST_BYTES, OFFSET
from maskstream.shards.format.dataset import (
    DATASET_JSON,
    MANIFEST,
    REJECTS,
    ROW_GROUP,
    finish_split,
    read_dataset_json,
)
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member
from maskstream.shards.sealed import sealed

INFO = DatasetInfo(dataset="big", split="train", modality="video", profile="train")
_FURTHER = 1 << 24
"""Up to how many bytes the members of `spread` are further behind than those of the real shard."""
DIFFERENT, FRAMES, WIDTH, HEIGHT = 5, 300, 340, 256


def make_splits(folder: Path, shards: int, per_shard: int) -> None:
    """Makes `folder`/one (a real shard), `folder`/linked and `folder`/spread (`shards` shards), unless they exist."""
    one = folder / "one"
    if not (one / DATASET_JSON).exists():
        one.mkdir(parents=True, exist_ok=True)
        finish_split(one, INFO, [write_shard(one / "one-000000.tar", _samples(per_shard))], [])
    info = read_dataset_json(one)
    if info["counts"]["samples"] != per_shard:
        raise SystemExit(
            f"{one} has {info['counts']['samples']} samples a shard, not {per_shard}; choose another --data"
        )
    table = pq.read_table(one / MANIFEST)
    for name in ("spread", "linked"):
        to = folder / name
        if (to / DATASET_JSON).exists() and read_dataset_json(to)["counts"]["shards"] == shards:
            continue
        to.mkdir(exist_ok=True)
        names = [f"big-{n:06d}.tar" for n in range(shards)]
        if name == "linked":
            for shard in names:
                if not (to / shard).exists():
                    os.link(one / "one-000000.tar", to / shard)
        shutil.copy(one / REJECTS, to / REJECTS)
        _write_manifest(to / MANIFEST, table, names, per_shard, spread=name == "spread")
        _write_info(to / DATASET_JSON, info, names, longer=_FURTHER if name == "spread" else 0)


def _samples(number: int) -> Iterator[Sample]:
    """Some encoded videos of moving noise, over and over."""
    with tempfile.TemporaryDirectory() as scratch:
        videos = [encode_video(_moving(Path(scratch) / f"{n}.mp4", n), PROFILES["train"]) for n in range(DIFFERENT)]
    for n in range(number):
        video = videos[n % DIFFERENT]
        members = {"mp4": video_member(video.data, video.index), "json": json_member(video.meta)}
        yield Sample(key=f"big/{n:07d}", members=members, source=f"{n}.mp4", label=n % 400)


def _moving(path: Path, seed: int) -> Path:
    small = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 8, WIDTH // 8 + 1, 3), dtype=np.uint8)
    picture = np.repeat(np.repeat(small, 8, 0), 8, 1)[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            moved = np.ascontiguousarray(np.roll(picture, (i, 2 * i), (0, 1)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _write_manifest(path: Path, table: pa.Table, names: list[str], per_shard: int, *, spread: bool) -> None:
    rng = np.random.default_rng(0)
    total = len(names) * per_shard
    words = pa.array(names, pa.string())
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for first in track(range(0, total, ROW_GROUP), description=f"index of {path.parent.name}"):
            rows = np.arange(first, min(first + ROW_GROUP, total))
            group = table.take(pa.array(rows % per_shard)).combine_chunks()
            shard = pa.DictionaryArray.from_arrays(pa.array((rows // per_shard).astype(np.int32)), words)
            group = _with(group, "shard", shard)
            group = _with(group, "key", pa.array([f"big/{row:07d}" for row in rows], pa.string()))
            group = _with(group, "source", pa.array([f"class/video {row:07d}.mp4" for row in rows], pa.string()))
            writer.write_table(_spread(group, rng) if spread else group, row_group_size=ROW_GROUP)


def _spread(group: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The same with offsets, sizes and checksums that do not repeat, as those of different videos do not."""
    for name in group.column_names:
        column = group.column(name)
        if name.endswith(OFFSET):
            group = _with(group, name, pa.array(column.to_numpy() + rng.integers(0, _FURTHER, len(group))))
        elif name.endswith(DIGEST):
            flat = pa.py_buffer(rng.bytes(DIGEST_BYTES * len(group)))
            group = _with(group, name, pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(group), [None, flat]))
        elif name in ("gop_offset", "gop_size"):
            lists = column.combine_chunks()
            lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
            values = lists.values.to_numpy() + rng.integers(0, 1 << 15, len(lists.values))
            group = _with(group, name, pa.ListArray.from_arrays(lists.offsets, pa.array(values)))
    return group


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), column)


def _write_info(path: Path, info: dict[str, object], names: list[str], longer: int) -> None:
    shards: list[dict[str, object]] = info["shards"]  # type: ignore[assignment]
    counts: dict[str, int] = info["counts"]  # type: ignore[assignment]
    many = {key: value * (len(names) if key != "rejects" else 1) for key, value in counts.items()}
    files = {name: facts_of((path.parent / name).read_bytes()) for name in (MANIFEST, REJECTS)}
    size = {"size_bytes": shards[0]["size_bytes"] + longer}  # type: ignore[operator]
    described = [{**shards[0], **size, "name": name} for name in names]
    path.write_bytes(sealed(info | {"counts": many, "files": files, "shards": described}))
