"""Splits of any size for measurements, made from one real shard."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import track

from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.columns import COMPONENTS_KEY, DIGEST, DIGEST_BYTES, OFFSET, ShardFacts, part_metadata
from maskstream.shards.format.dataset import DATASET_JSON, REJECTS, finish_split, publish_version, read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import PART_SAMPLES, parquet_bytes, part_name
from maskstream.shards.format.records import ShardRecord
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member
from maskstream.shards.stores.output import LocalOutput

Part = tuple[dict[str, Any], dict[str, Any]]
"""A part as dataset.json names it, and its size and checksum."""

INFO = DatasetInfo(dataset="big", split="train", modality="video", profile="train")
RECORD = "record.json"
"""The file beside the real shard that holds its record."""
_FURTHER = 1 << 24
"""Up to how many bytes the members of `spread` are further behind than those of the real shard."""
DIFFERENT, FRAMES, WIDTH, HEIGHT = 5, 300, 340, 256


def make_splits(folder: Path, shards: int, per_shard: int, kinds: Sequence[str] = ("spread", "linked")) -> None:
    """Makes `folder`/one (a real shard), `folder`/linked and `folder`/spread (`shards` shards), unless they exist."""
    one = folder / "one"
    if not (one / DATASET_JSON).exists():
        one.mkdir(parents=True, exist_ok=True)
        record = write_shard(one / "one-000000.tar", _samples(per_shard))
        (one / RECORD).write_text(json.dumps(record.to_json()))
        finish_split(one, INFO, [record], [])
    info = read_dataset_json(one)
    if info["counts"]["samples"] != per_shard:
        raise SystemExit(
            f"{one} has {info['counts']['samples']} samples a shard, not {per_shard}; choose another --data"
        )
    table = pq.read_table(one / part_name(0))
    for name in kinds:
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
        (shard,) = Manifest.load(one).shards()
        parts = _write_parts(to, table, shard, names, spread=name == "spread")
        _write_info(to, info, shards, parts, longer=_FURTHER if name == "spread" else 0)


def read_record(one: Path) -> ShardRecord:
    """The record of the real shard."""
    return ShardRecord.from_json(json.loads((one / RECORD).read_text()))


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


def _write_parts(folder: Path, table: pa.Table, shard: ShardFacts, names: list[str], *, spread: bool) -> list[Part]:
    """Writes the parts of a manifest whose shards all hold the samples of `table`; returns what describes each."""
    rng, per_shard = np.random.default_rng(0), shard.samples
    kinds = json.loads(table.schema.metadata[COMPONENTS_KEY])
    parts: list[Part] = []
    of_a_part = max(PART_SAMPLES // per_shard, 1)
    for first in track(range(0, len(names), of_a_part), description=f"index of {folder.name}"):
        own = names[first : first + of_a_part]
        rows = np.arange(first * per_shard, (first + len(own)) * per_shard)
        group = table.take(pa.array(rows % per_shard)).combine_chunks()
        numbers = pa.array((rows // per_shard - first).astype(np.int32))
        group = _with(group, "shard", pa.DictionaryArray.from_arrays(numbers, pa.array(own, pa.string())))
        group = _with(group, "key", pa.array([f"big/{row:07d}" for row in rows], pa.large_string()))
        group = _with(group, "source", pa.array([f"class/video {row:07d}.mp4" for row in rows], pa.large_string()))
        longer = _FURTHER if spread else 0
        described = [replace(shard, name=name, size_bytes=shard.size_bytes + longer).to_json() for name in own]
        group = _spread(group, rng) if spread else group
        data = parquet_bytes(group.replace_schema_metadata(part_metadata(kinds, described)))
        name = part_name(len(parts))
        (folder / name).write_bytes(data)
        parts.append(({"name": name, "samples": len(rows), "shards": len(own)}, facts_of(data)))
    return parts


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


def _write_info(folder: Path, info: dict[str, Any], shards: int, parts: list[Part], longer: int) -> None:
    many = {key: value * (shards if key != "rejects" else 1) for key, value in info["counts"].items()}
    files = {part["name"]: facts for part, facts in parts} | {REJECTS: facts_of((folder / REJECTS).read_bytes())}
    counts = many | {"shards": shards, "bytes": many["bytes"] + shards * longer}
    described = info | {"counts": counts, "files": files, "parts": [part for part, _ in parts]}
    publish_version(LocalOutput(folder), described)
