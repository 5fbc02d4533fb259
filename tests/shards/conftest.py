"""Shards of tiny videos and JSON, written once per test session or anew per test."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Reject, Sample
from maskstream.shards.format.writer import ShardRecord, write_shard
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member

INFO = DatasetInfo(
    dataset="toy", split="train", modality="video", profile="train", label_names=("a", "b"), settings={"short_side": 32}
)
REJECTS = [
    Reject(source="z.mp4", stage="decode", reason="no frames"),
    Reject(source="a.mp4", stage="probe", reason="x"),
]
X264 = {"preset": "ultrafast", "bf": "0", "sc_threshold": "0"}


def fragmented_video(
    n_frames: int, seed: int, gop: int = 4, width: int = 64, height: int = 48
) -> tuple[bytes, VideoIndex]:
    """A fragmented MP4 (H.264, closed GOPs of `gop` frames) and its index, read off its boxes."""
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer"}
    with av.open(buffer, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=8, options=X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        for _ in range(n_frames):
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    data = buffer.getvalue()
    offset = np.array([start for name, start in boxes(data) if name == "moof"], dtype=np.int64)
    return data, VideoIndex(
        codec="h264",
        fps=8.0,
        n_frames=n_frames,
        width=width,
        height=height,
        header_size=int(offset[0]),
        first_frame=np.arange(0, n_frames, gop, dtype=np.int64),
        offset=offset,
        size=np.diff(offset, append=len(data)),
        lead=np.zeros(len(offset), dtype=np.int64),
    )


def index_of(sample: Sample, name: str = "mp4") -> VideoIndex:
    """The index of a sample's video."""
    member = sample.members[name]
    return VideoIndex.of(member.facts, member.words, member.lists)


def boxes(data: bytes) -> list[tuple[str, int]]:
    """The (name, offset) of the top-level boxes of an MP4."""
    found, position = [], 0
    while position < len(data):
        found.append((data[position + 4 : position + 8].decode(), position))
        position += int.from_bytes(data[position : position + 4], "big")
    return found


def video_sample(number: int, n_frames: int = 10) -> Sample:
    data, index = fragmented_video(n_frames, seed=number)
    meta = json_member({"label": number % 2, "n_frames": n_frames})
    members = {"mp4": video_member(data, index), "json": meta}
    return Sample(key=f"toy/{number:04d}", members=members, source=f"{number}.avi", label=number % 2)


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Eight videos of 6 to 13 frames."""
    return [video_sample(number, 6 + number) for number in range(8)]


@pytest.fixture
def make_split(samples: list[Sample], tmp_path: Path) -> Callable[..., list[ShardRecord]]:
    """Writes the samples to a folder (the test's own by default) as a finished split of shards of three."""

    def make(folder: Path = tmp_path) -> list[ShardRecord]:
        groups = [samples[start : start + 3] for start in range(0, len(samples), 3)]
        records = [write_shard(folder / f"toy-{number:06d}.tar", group) for number, group in enumerate(groups)]
        finish_split(folder, INFO, records, REJECTS)
        return records

    return make


@pytest.fixture
def split(make_split: Callable[..., list[ShardRecord]], tmp_path: Path) -> Path:
    """The folder of a finished split: 8 samples in 3 shards, 2 rejects."""
    make_split()
    return tmp_path
