"""Episodes of LeRobot v3.0 with two cameras: actions of the frames that a clip shows, and both cameras together.

The user downloads datasets from the Hub and wants frames, actions and states that belong together.
"""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from lerobot_layout import Episode, write_lerobot

from maskstream.pipelines import VideoClip, augment, video_loader
from maskstream.shards import (
    DatasetInfo,
    Manifest,
    Sample,
    array_member,
    finish_split,
    json_member,
    video_member,
    write_shard,
)

from .conftest import Command, plain

CAMERAS = {"observation.images.top": 40, "observation.images.wrist": 140}
LENGTHS = (40, 36, 44, 38)


def episode(number: int) -> Episode:
    """A frame's grey and its action both tell the step."""
    steps = np.arange(LENGTHS[number])
    action = np.stack([steps, np.full_like(steps, number)], 1).astype(np.float32)
    cameras = {name: np.stack([plain(level + 2 * int(step)) for step in steps]) for name, level in CAMERAS.items()}
    task = ("reach the cube", "push the cube")[number % 2]
    return Episode(task=task, arrays={"action": action, "observation.state": -action}, cameras=cameras)


def join_cameras(one: Path, both: Path) -> None:
    """The recipe of docs/fields.md: a sample of each episode, with two videos."""
    single, episodes = Manifest.load(one), {}
    for i in range(len(single)):
        about = json.loads(single.store.read(*single.member(i, "json")))
        members = episodes.setdefault(about["episode"], {"json": json_member({"task": about["task"]})})
        camera = about["camera"].rpartition(".")[2]
        members[f"{camera}.mp4"] = video_member(single.store.read(*single.member(i, "mp4")), single.video(i))
        action = single.store.read(*single.member(i, "action.npy"))
        members["action.npy"] = array_member(np.load(io.BytesIO(action)))
    both.mkdir(parents=True)
    samples = [Sample(key=f"episode{n}", members=members, source=str(n)) for n, members in episodes.items()]
    info = DatasetInfo(dataset="both", split="train", modality="video", profile="train")
    finish_split(both, info, [write_shard(both / "both-000000.tar", samples)], [])


@pytest.mark.slow
def test_frames_and_actions_of_both_cameras_are_of_the_same_steps(maskstream: Command, tmp_path: Path) -> None:
    write_lerobot(tmp_path / "raw", [episode(n) for n in range(4)], {"train": "0:3", "val": "3:4"}, "v3.0")
    maskstream("datasets lerobot")
    maskstream("shards lerobot --root raw --out shards --workers 1")
    maskstream("inspect shards/train")
    split = Manifest.load(tmp_path / "shards/train")
    assert len(split) == 3 * len(CAMERAS)

    clip = VideoClip(frames=4, stride=4, size=32)
    fields = ("action", "state", "task", "camera", "episode")
    seen = set()
    for batch in video_loader(tmp_path / "shards/train", clip=clip, fields=fields, batch_size=3, seed=0):
        for i in range(3):
            about = {name: batch.fields[name][i] for name in fields}
            action = np.asarray(about["action"])
            grey = batch.video[i].float().mean((1, 2, 3)).numpy()
            assert np.abs(grey - CAMERAS[about["camera"]] - 2 * action[:, 0]).max() < 1.5
            assert np.array_equal(np.asarray(about["state"]), -action)
            assert set(action[:, 1]) == {int(about["episode"])}
            assert about["task"] == ("reach the cube", "push the cube")[int(about["episode"]) % 2]
            seen.add((int(about["episode"]), about["camera"]))
    assert seen == {(number, camera) for number in range(3) for camera in CAMERAS}

    join_cameras(tmp_path / "shards/train", tmp_path / "both/train")
    assert "name one with component= (--set component=top.mp4)" in maskstream("preview both/train", fails=True).text
    maskstream("preview both/train --component wrist.mp4 --samples 1 --out page.html --set clip.size=32 --set patch=8")
    options = {"clip": clip, "fields": ("action",), "batch_size": 3, "seed": 0, "augment": augment.CenterCrop()}
    loaders = [video_loader(tmp_path / "both/train", component=f"{name}.mp4", **options) for name in ("top", "wrist")]
    for top, wrist in zip(*loaders, strict=True):
        assert top.key == wrist.key
        assert np.array_equal(top.fields["action"], wrist.fields["action"])
        apart = wrist.video.float().mean((2, 3, 4)) - top.video.float().mean((2, 3, 4))
        assert (apart - 100).abs().max() < 3, "the same frames of both"
