"""Datasets of LeRobot in the formats v2.1 and v3.0: an episode's frames, actions and states keep their places."""

import io
import json
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.preprocess import DATASETS, PROFILES, make_shards
from maskstream.preprocess.encode.reject import RejectError
from maskstream.preprocess.encode.video.episode import EpisodeEncoder
from maskstream.shards.errors import DatasetError

FPS, LENGTHS, CAMERAS = 30, (18, 25, 21), ("observation.images.top", "observation.images.wrist")
TASKS = ("pick up the cube", "open the drawer", "pick up the cube")
FEATURES = {
    "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
    "observation.state": {"dtype": "float32", "shape": [3], "names": None},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
    **{name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")},
    "timestamp": {"dtype": "float32", "shape": [1]},
    **{name: {"dtype": "video", "shape": [48, 64, 3], "info": {"video.fps": FPS}} for name in CAMERAS},
}


def grey(number, camera):
    """The level of a frame, of all frames of all episodes."""
    return 40 + 3 * (number % 60) + 5 * camera


def encode(path, numbers, camera, codec, gop):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
        for n, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey(number, camera), np.uint8), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_video(path, parts, camera, codec, gop):
    """The frames of each part are encoded alone, and the packets joined, as LeRobot does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as joined:
        stream, first = None, 0
        for part in parts:
            encode(path.with_name("part.mp4"), part, camera, codec, gop)
            with av.open(str(path.with_name("part.mp4"))) as container:
                stream = stream or joined.add_stream_from_template(container.streams.video[0], opaque=True)
                begin = round(first / FPS / container.streams.video[0].time_base)
                for packet in container.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + begin, packet.dts + begin, stream
                        joined.mux(packet)
            first += len(part)
    path.with_name("part.mp4").unlink()


def first_of(episode):
    return sum(LENGTHS[:episode])


def rows(episode):
    length, first = LENGTHS[episode], first_of(episode)
    steps = np.arange(length)
    return {
        "action": (steps[:, None] + 100 * episode + np.array([0, 0.5])).astype(np.float32).tolist(),
        "observation.state": (first + steps[:, None] + np.array([0, 0.25, 0.5])).astype(np.float32).tolist(),
        "next.done": (steps == length - 1).tolist(),
        "timestamp": (steps / FPS).astype(np.float32).tolist(),
        "frame_index": steps.tolist(),
        "episode_index": [episode] * length,
        "index": (first + steps).tolist(),
        "task_index": [TASKS.index(TASKS[episode])] * length,
    }


def write_rows(path, episodes):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables([pa.table(rows(episode)) for episode in episodes]), path)


def write_info(root, version, **more):
    facts = {"codebase_version": version, "fps": FPS, "total_episodes": 3, "chunks_size": 1000, "features": FEATURES}
    facts |= {"splits": {"train": "0:2", "val": "2:3"}, **more}
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(facts))


def second(root, codec="libx264", gop=16):
    write_info(
        root,
        "v2.1",
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )
    lines = [json.dumps({"episode_index": n, "tasks": [TASKS[n]], "length": LENGTHS[n]}) for n in range(3)]
    (root / "meta/episodes.jsonl").write_text("\n".join(lines))
    for episode in range(3):
        write_rows(root / f"data/chunk-000/episode_{episode:06d}.parquet", [episode])
        numbers = range(first_of(episode), first_of(episode) + LENGTHS[episode])
        for camera, name in enumerate(CAMERAS):
            write_video(root / f"videos/chunk-000/{name}/episode_{episode:06d}.mp4", [numbers], camera, codec, gop)
    return root


def third(root, codec="libx264", gop=16, *, joined=True):
    write_info(
        root,
        "v3.0",
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    )
    write_rows(root / "data/chunk-000/file-000.parquet", range(3))
    for camera, name in enumerate(CAMERAS):
        parts = [range(first_of(n), first_of(n) + LENGTHS[n]) for n in range(3)] if joined else [range(sum(LENGTHS))]
        write_video(root / f"videos/{name}/chunk-000/file-000.mp4", parts, camera, codec, gop)
    entries = []
    for n in range(3):
        entry = {"episode_index": n, "tasks": [TASKS[n]], "length": LENGTHS[n], "stats/action/min": [0.0]}
        entry |= {"data/chunk_index": 0, "data/file_index": 0}
        for name in CAMERAS:
            entry |= {f"videos/{name}/chunk_index": 0, f"videos/{name}/file_index": 0}
            entry[f"videos/{name}/from_timestamp"] = first_of(n) / FPS
            entry[f"videos/{name}/to_timestamp"] = (first_of(n) + LENGTHS[n]) / FPS
        entries.append(entry)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(entries), root / "meta/episodes/chunk-000/file-000.parquet")
    return root


def levels(data, folder):
    path = folder / "one.mp4"
    path.write_bytes(data)
    with av.open(str(path)) as container:
        return [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]


@pytest.mark.parametrize("write", [second, third])
@pytest.mark.parametrize(("profile", "codec", "gop"), [("copy", "libsvtav1", 2), ("train", "libx264", 16)])
def test_every_frame_has_its_rows(tmp_path, write, profile, codec, gop):
    dataset = DATASETS["lerobot"](write(tmp_path / "raw", codec, gop))
    assert {split: [one.id for one in sources] for split, sources in dataset.splits.items()} == {
        "train": [f"{n:06d}/{name}" for n in range(2) for name in CAMERAS],
        "val": [f"000002/{name}" for name in CAMERAS],
    }
    assert dataset.label_names == ("open the drawer", "pick up the cube")
    assert [one.label for one in dataset.splits["train"]] == [1, 1, 0, 0]
    for episode, camera in ((1, 1), (2, 0)):
        source = [*dataset.splits["train"], *dataset.splits["val"]][2 * episode + camera]
        assert (source.meta["camera"], source.meta["task"]) == (CAMERAS[camera], TASKS[episode])
        found = EpisodeEncoder(PROFILES[profile]).encode(source)
        wanted = [grey(first_of(episode) + step, camera) for step in range(LENGTHS[episode])]
        assert np.abs(np.array(levels(found.members["mp4"].data, tmp_path)) - wanted).max() < 1.5
        assert sorted(found.members) == ["action.npy", "mp4", "next.done.npy", "state.npy"]
        for name, column in {"action": "action", "state": "observation.state"}.items():
            np.testing.assert_array_equal(np.load(io.BytesIO(found.members[f"{name}.npy"].data)), rows(episode)[column])


def test_a_loader_gives_the_actions_of_a_clips_frames(tmp_path):
    make_shards("lerobot", third(tmp_path / "raw", joined=False), tmp_path / "out", workers=0)
    loader = video_loader(
        tmp_path / "out" / "train",
        clip=VideoClip(frames=4, stride=4, size=32),
        mask=masks.Tube(ratio=0.5),
        fields=("action", "state", "task", "next.done"),
        batch_size=4,
        seed=0,
    )
    (batch,) = loader
    steps = batch.fields["action"][:, :, 0].numpy() % 100
    np.testing.assert_array_equal(np.diff(steps, axis=1), 4.0)
    firsts = batch.fields["state"][:, :, 0].numpy() - steps
    assert sorted(firsts[:, 0].tolist()) == [0.0, 0.0, 18.0, 18.0]
    np.testing.assert_allclose(np.round(batch.pts_s.numpy() * FPS), steps)
    assert sorted(batch.fields["task"]) == ["open the drawer"] * 2 + ["pick up the cube"] * 2
    assert batch.fields["next.done"].shape == (4, 4, 1)


def test_a_part_that_begins_within_a_gop_is_not_copied(tmp_path):
    source = DATASETS["lerobot"](third(tmp_path / "raw", joined=False)).splits["train"][2]
    with pytest.raises(RejectError, match="profile copy stores whole files"):
        EpisodeEncoder(PROFILES["copy"]).encode(source)


def test_what_does_not_fit_is_said(tmp_path):
    root = second(tmp_path / "raw")
    with pytest.raises(ValueError, match="leaves frames out, but actions have a row for each"):
        make_shards("lerobot", root, tmp_path / "out", profile=PROFILES["fps"])
    write_rows(root / "data/chunk-000/episode_000000.parquet", [1])
    source = DATASETS["lerobot"](root).splits["train"][0]
    with pytest.raises(RejectError, match="has no rows of episode 0"):
        EpisodeEncoder().encode(source)
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match=r"there is no .*meta/info\.json\. Get a dataset with"):
        DATASETS["lerobot"](tmp_path / "none")
    info = json.loads((root / "meta/info.json").read_text())
    info["video_path"] = "../{video_key}.mp4"
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="which leaves ROOT"):
        DATASETS["lerobot"](root)
    info["features"] = {name: one for name, one in FEATURES.items() if one["dtype"] != "video"}
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="has the dtype video; pictures in Parquet files are not read"):
        DATASETS["lerobot"](root)
