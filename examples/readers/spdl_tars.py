"""SPDL decodes the members of the tars in threads: the manifest says where they lie, so nothing is listed or unpacked.

python spdl_tars.py data/shards/k400/train     # pip install spdl spdl-io pyarrow

SPDL also needs FFmpeg's shared libraries, on Debian: apt-get install ffmpeg.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import spdl.io
from spdl.pipeline import PipelineBuilder

FRAMES, SIDE = 8, 64
Member = tuple[Path, int, int]


def members(split: Path) -> Iterator[Member]:
    """The tar, the first byte and the size of each sample's mp4, in the manifest's order."""
    for part in json.loads((split / "dataset.json").read_text())["parts"]:
        for row in pq.read_table(split / part["name"], columns=["shard", "mp4.offset", "mp4.size"]).to_pylist():
            yield split / row["shard"], row["mp4.offset"], row["mp4.size"]


def decoded(member: Member) -> np.ndarray:
    """The first frames of a video, uint8 (8, 64, 64, 3)."""
    path, offset, size = member
    with path.open("rb") as tar:
        tar.seek(offset)
        data = tar.read(size)
    size = {"scale_width": SIDE, "scale_height": SIDE, "scale_mode": None}  # by default it pads to keep the aspect
    scaled = spdl.io.get_video_filter_desc(**size, num_frames=FRAMES, pix_fmt="rgb24")
    frames = spdl.io.decode_packets(spdl.io.demux_video(data), filter_desc=scaled)
    return spdl.io.to_numpy(spdl.io.convert_frames(frames))


def batches(split: Path, batch_size: int = 4, threads: int = 2) -> Iterator[np.ndarray]:
    """uint8 (B, 8, 64, 64, 3) in the manifest's order; the last one may be shorter."""
    steps = PipelineBuilder().add_source(members(split))
    steps = steps.pipe(decoded, concurrency=threads, output_order="input").aggregate(batch_size)
    pipeline = steps.pipe(np.stack).add_sink(2).build(num_threads=threads)
    with pipeline.auto_stop():
        yield from pipeline


if __name__ == "__main__":
    for batch in batches(Path(sys.argv[1])):
        print(batch.shape, batch.dtype)
