"""Datasets of LeRobot in the formats v2.1 and v3.0: an episode's frames, actions and states keep their places."""

import io
import json
import shutil

import av
import numpy as np
import pytest
from lerobot_layout import Episode, Videos, write_lerobot

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.preprocess import DATASETS, PROFILES, make_shards
from maskstream.preprocess.encode.video.encoder import EpisodeEncoder
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError

FPS, LENGTHS, CAMERAS = 30, (18, 25, 21), ("observation.images.top", "observation.images.wrist")
TASKS = ("pick up the cube", "open the drawer", "pick up the cube")
SPLITS = {"train": "0:2", "val": "2:3"}


def grey(number, camera):
    """The level of a frame, of all frames of all episodes."""
    return 40 + 3 * (number % 60) + 5 * camera


def first_of(episode):
    return sum(LENGTHS[:episode])


def arrays(episode):
    length, first = LENGTHS[episode], first_of(episode)
    steps = np.arange(length)
    return {
        "action": (steps[:, None] + 100 * episode + np.array([0, 0.5])).astype(np.float32),
        "observation.state": (first + steps[:, None] + np.array([0, 0.25, 0.5])).astype(np.float32),
        "next.done": steps == length - 1,
    }


def frames(episode, camera):
    levels = [grey(first_of(episode) + step, camera) for step in range(LENGTHS[episode])]
    return np.broadcast_to(np.uint8(levels)[:, None, None, None], (LENGTHS[episode], 48, 64, 3)).copy()


def episodes():
    return [
        Episode(task=task, arrays=arrays(n), cameras={name: frames(n, c) for c, name in enumerate(CAMERAS)})
        for n, task in enumerate(TASKS)
    ]


def second(root, codec="libx264", gop=16):
    write_lerobot(root, episodes(), SPLITS, "v2.1", Videos(fps=FPS, codec=codec, gop=gop))
    return root


def third(root, codec="libx264", gop=16, *, joined=True):
    write_lerobot(root, episodes(), SPLITS, "v3.0", Videos(fps=FPS, codec=codec, gop=gop, joined=joined))
    return root


def levels(data, folder):
    path = folder / "one.mp4"
    path.write_bytes(data)
    with av.open(str(path)) as container:
        return [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]


@pytest.mark.parametrize("write", [second, third])
@pytest.mark.parametrize(
    ("profile", "codec", "gop"), [("copy", "libsvtav1", 2), ("copy", "libx264", 8), ("train", "libx264", 16)]
)
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
            np.testing.assert_array_equal(
                np.load(io.BytesIO(found.members[f"{name}.npy"].data)), arrays(episode)[column]
            )


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


@pytest.mark.parametrize("write", [second, third])
def test_an_episode_is_one_sample_with_a_video_of_each_camera(tmp_path, write):
    dataset = DATASETS["lerobot"](write(tmp_path / "raw"), cameras="together")
    assert {split: [one.id for one in sources] for split, sources in dataset.splits.items()} == {
        "train": ["000000", "000001"],
        "val": ["000002"],
    }
    found = EpisodeEncoder(PROFILES["copy"]).encode(dataset.splits["val"][0])
    assert sorted(found.members) == ["action.npy", "next.done.npy", "state.npy", "top.mp4", "wrist.mp4"]
    for camera, name in enumerate(("top.mp4", "wrist.mp4")):
        wanted = [grey(first_of(2) + step, camera) for step in range(LENGTHS[2])]
        assert np.abs(np.array(levels(found.members[name].data, tmp_path)) - wanted).max() < 1.5


def test_cameras_without_names_of_their_own_and_unknown_words_are_refused(tmp_path):
    root = second(tmp_path / "raw")
    with pytest.raises(DatasetError, match="--set cameras=both is not allowed; use apart or together"):
        DATASETS["lerobot"](root, cameras="both")
    text = (root / "meta/info.json").read_text().replace("images.wrist", "other.top")
    (root / "meta/info.json").write_text(text)
    with pytest.raises(DatasetError, match="need distinct last words in their names"):
        DATASETS["lerobot"](root, cameras="together")


def test_a_part_that_begins_within_a_gop_is_not_copied(tmp_path):
    source = DATASETS["lerobot"](third(tmp_path / "raw", joined=False)).splits["train"][2]
    with pytest.raises(RejectError, match="profile copy stores whole files"):
        EpisodeEncoder(PROFILES["copy"]).encode(source)


def test_what_does_not_fit_is_said(tmp_path):
    root = second(tmp_path / "raw")
    with pytest.raises(ValueError, match="drops frames, but actions have one row per frame"):
        make_shards("lerobot", root, tmp_path / "out", profile=PROFILES["fps"])
    shutil.copy(root / "data/chunk-000/episode_000001.parquet", root / "data/chunk-000/episode_000000.parquet")
    source = DATASETS["lerobot"](root).splits["train"][0]
    with pytest.raises(RejectError, match="has no rows of episode 0"):
        EpisodeEncoder().encode(source)
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match=r"meta/info\.json does not exist\. Get a dataset with"):
        DATASETS["lerobot"](tmp_path / "none")
    info = json.loads((root / "meta/info.json").read_text())
    info["video_path"] = "../{video_key}.mp4"
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="which points outside ROOT"):
        DATASETS["lerobot"](root)
    info["features"] = {name: one for name, one in info["features"].items() if one["dtype"] != "video"}
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="has the dtype video; images in Parquet files are not supported"):
        DATASETS["lerobot"](root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, r"episodes\.jsonl: line 2 is not valid JSON \(nested too deeply\)"),
        ("{", r"episodes\.jsonl: line 2 is not valid JSON"),
        ('{"episode_index": [1]}', r"episodes\.jsonl: line 2 is not an episode \(TypeError"),
        ('{"episode_index": 1, "tasks": [{"a": 1}]}', r"line 2 has tasks that are not valid text"),
        ('{"episode_index": 1, "tasks": ["\\ud800"]}', r"line 2 has tasks that are not valid text"),
    ],
)
def test_a_line_that_is_no_episode_is_named(tmp_path, line, message):
    root = second(tmp_path / "raw")
    path = root / "meta/episodes.jsonl"
    path.write_text(f"{path.read_text().splitlines()[0]}\n{line}\n")
    with pytest.raises(DatasetError, match=message):
        DATASETS["lerobot"](root)


def test_no_number_of_info_json_ends_the_listing_with_a_traceback(tmp_path):
    root = second(tmp_path / "raw")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "chunks_size": 0}))
    with pytest.raises(DatasetError, match="ZeroDivisionError"):
        DATASETS["lerobot"](root)
    (root / "meta/info.json").write_text(json.dumps({**info, "data_path": "data/{episode_index:0999999999999d}"}))
    with pytest.raises(DatasetError, match=r"info\.json has the data_path 'data/.*; use placeholders such as"):
        DATASETS["lerobot"](root)
