"""Episodes of LeRobot v3.0 with two cameras: actions of the frames that a clip shows, and both cameras together.

The user downloads datasets from the Hub and wants frames, actions and states that belong together.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot_layout import Episode, write_lerobot

from maskstream.pipelines import Field, VideoClip, augment, video_loader
from maskstream.shards import Manifest

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

    maskstream("shards lerobot --root raw --out both --workers 1 --set cameras=together")
    assert "choose one with component= (--set component=top.mp4)" in maskstream("preview both/train", fails=True).text
    small = "--set clip.size=32 --set clip.frames=4 --set patch=8"
    cameras = "--component top.mp4 --component wrist.mp4"
    for command in ("preview", "flow"):
        maskstream(f"{command} both/train {cameras} --samples 1 --out {command}.html {small}")
        page = (tmp_path / f"{command}.html").read_text()
        assert page.count(", top.mp4") == page.count(", wrist.mp4") > 0, "a card of each camera"
    measured = maskstream(f"bench both/train {cameras} --batch-size 3 --seconds 0.2 --device cpu --json {small}").json
    assert measured["samples"] > 0
    refused = maskstream(f"train videomae-tiny --data both/train {cameras}", fails=True).text
    assert "reads one video per sample, but component=('top.mp4', 'wrist.mp4') specifies 2" in refused
    one = "--component wrist.mp4 --steps 1 --batch-size 2 --set clip.frames=4 --set clip.size=32 --set patch=8"
    assert "1 of 1 steps" in maskstream(f"train videomae-tiny --data both/train --out run {one}").text
    assert '"component": "wrist.mp4"' in (tmp_path / "run/run.json").read_text()

    loader = video_loader(
        tmp_path / "both/train",
        component=("top.mp4", "wrist.mp4"),
        clip=clip,
        fields=(Field(name="action", delta_timestamps=(-1 / 30, 0, 1 / 30)),),
        batch_size=3,
        seed=0,
        augment=augment.CenterCrop(),
    )
    for batch in loader:
        top, wrist = batch.cameras["top.mp4"], batch.cameras["wrist.mp4"]
        apart = wrist.video.float().mean((2, 3, 4)) - top.video.float().mean((2, 3, 4))
        assert (apart - 100).abs().max() < 3, "the same frames of both"
        step = (top.pts_s * 30).round()
        inside = ~batch.fields["action_is_pad"]
        wanted = step[..., None] + torch.tensor([-1.0, 0.0, 1.0])
        assert torch.equal(batch.fields["action"][..., 0][inside].double(), wanted[inside])
