"""Episodes as LeRobot keeps them: in v2.1 a file for each episode, in v3.0 files of several episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PATHS = {
    "v2.1": {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    },
    "v3.0": {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
}
COUNTS = ("frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """A task, arrays by feature with a row for each frame, and frames by camera, uint8 (T, H, W, 3)."""

    task: str
    arrays: Mapping[str, np.ndarray]
    cameras: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


@dataclass(frozen=True, kw_only=True, slots=True)
class Videos:
    """How videos are encoded. joined: whether each episode in a file begins with a key frame, as LeRobot writes it."""

    fps: int = 30
    codec: str = "libx264"
    gop: int = 16
    joined: bool = True


def write_lerobot(
    root: Path, episodes: Sequence[Episode], splits: Mapping[str, str], version: str = "v3.0", videos: Videos = Videos()
) -> None:
    """Write meta/, data/ and videos/ of a version: v2.1 or v3.0. `splits` are those of info.json: {"train": "0:2"}."""
    tables = [_rows(episodes, number, videos.fps) for number in range(len(episodes))]
    _write_info(root, episodes, splits, version, videos.fps)
    if version == "v2.1":
        lines = [
            {"episode_index": number, "tasks": [one.task], "length": len(one)} for number, one in enumerate(episodes)
        ]
        (root / "meta/episodes.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
        for number, one in enumerate(episodes):
            _write_table(root / f"data/chunk-000/episode_{number:06d}.parquet", tables[number])
            for camera, frames in one.cameras.items():
                _write_video(root / f"videos/chunk-000/{camera}/episode_{number:06d}.mp4", [frames], videos)
        return
    _write_table(root / "data/chunk-000/file-000.parquet", pa.concat_tables(tables))
    for camera in episodes[0].cameras:
        parts = [one.cameras[camera] for one in episodes]
        parts = parts if videos.joined else [np.concatenate(parts)]
        _write_video(root / f"videos/{camera}/chunk-000/file-000.mp4", parts, videos)
    rows = pa.Table.from_pylist([_place(episodes, number, videos.fps) for number in range(len(episodes))])
    _write_table(root / "meta/episodes/chunk-000/file-000.parquet", rows)


def first_frame(episodes: Sequence[Episode], number: int) -> int:
    """How many frames are before an episode."""
    return sum(len(one) for one in episodes[:number])


def _write_info(root: Path, episodes: Sequence[Episode], splits: Mapping[str, str], version: str, fps: int) -> None:
    features: dict[str, dict[str, Any]] = {
        name: {"dtype": array.dtype.name, "shape": [*array.shape[1:]] or [1], "names": None}
        for name, array in episodes[0].arrays.items()
    }
    features |= {name: {"dtype": "int64", "shape": [1]} for name in COUNTS}
    features["timestamp"] = {"dtype": "float32", "shape": [1]}
    for name, frames in episodes[0].cameras.items():
        features[name] = {"dtype": "video", "shape": [*frames.shape[1:]], "info": {"video.fps": fps}}
    facts = {"codebase_version": version, "fps": fps, "total_episodes": len(episodes), "chunks_size": 1000}
    facts |= {"features": features, "splits": dict(splits), **PATHS[version]}
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(facts))


def _rows(episodes: Sequence[Episode], number: int, fps: int) -> pa.Table:
    one, first = episodes[number], first_frame(episodes, number)
    tasks = list(dict.fromkeys(one.task for one in episodes))
    steps = np.arange(len(one))
    columns = {name: array.tolist() for name, array in one.arrays.items()}
    columns |= {"timestamp": (steps / fps).astype(np.float32).tolist(), "frame_index": steps.tolist()}
    columns |= {"episode_index": [number] * len(one), "index": (first + steps).tolist()}
    return pa.table(columns | {"task_index": [tasks.index(one.task)] * len(one)})


def _place(episodes: Sequence[Episode], number: int, fps: int) -> dict[str, Any]:
    """Where v3.0 keeps an episode."""
    one, first = episodes[number], first_frame(episodes, number)
    found = {"episode_index": number, "tasks": [one.task], "length": len(one), "stats/action/min": [0.0]}
    found |= {"data/chunk_index": 0, "data/file_index": 0}
    for name in one.cameras:
        found |= {f"videos/{name}/chunk_index": 0, f"videos/{name}/file_index": 0}
        found[f"videos/{name}/from_timestamp"] = first / fps
        found[f"videos/{name}/to_timestamp"] = (first + len(one)) / fps
    return found


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_video(path: Path, parts: Sequence[np.ndarray], videos: Videos) -> None:
    """The frames of each part are encoded alone, and the packets joined, as LeRobot does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    alone = path.with_name("part.mp4")
    with av.open(str(path), "w") as joined:
        stream, first = None, 0
        for frames in parts:
            _encode(alone, frames, videos)
            with av.open(str(alone)) as container:
                stream = stream or joined.add_stream_from_template(container.streams.video[0], opaque=True)
                begin = round(first / videos.fps / container.streams.video[0].time_base)
                for packet in container.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + begin, packet.dts + begin, stream
                        joined.mux(packet)
            first += len(frames)
    alone.unlink()


def _encode(path: Path, frames: np.ndarray, videos: Videos) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(videos.codec, rate=videos.fps, options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = videos.gop, 1
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, videos.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
