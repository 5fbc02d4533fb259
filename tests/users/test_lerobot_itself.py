"""A dataset that LeRobot wrote: clips, actions and padding are those of its own `delta_timestamps`, item by item."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from arm import episode

from maskstream.pipelines import Field, VideoClip, augment, video_loader

from .conftest import Command

PYTHON = os.environ.get("LEROBOT_PYTHON") or (sys.executable if find_spec("lerobot") else "")
LENGTHS, FPS = (24, 31, 27), 30
TASKS = ("reach the cube", "push the cube away")
FRAMES, STRIDE = 3, 4
ASKED = {
    "action": [step / FPS for step in range(-2, 16)],
    "observation.state": [-0.1, -1 / FPS, 0.0],
    **{f"observation.images.{name}": [n * STRIDE / FPS for n in range(FRAMES)] for name in ("top", "wrist")},
}


def by_lerobot(*words: object) -> None:
    own = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = str(Path(__file__).with_name("lerobot_itself.py"))
    done = subprocess.run([PYTHON, script, *map(str, words)], env={**os.environ, **own}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="lerobot is not installed; `make test-lerobot` installs it")
def test_clips_and_actions_are_those_of_lerobots_own_delta_timestamps(maskstream: Command, tmp_path: Path) -> None:
    made = {n: episode(n, TASKS[n % 2], length) for n, length in enumerate(LENGTHS)}
    raw = {f"{n}/{name}": array for n, one in made.items() for name, array in {**one.arrays, **one.cameras}.items()}
    np.savez(tmp_path / "raw.npz", **raw, **{f"{n}/task": np.array(one.task) for n, one in made.items()})
    (tmp_path / "asked.json").write_text(json.dumps(ASKED))
    by_lerobot("write", tmp_path / "raw.npz", tmp_path / "robot")
    by_lerobot("read", tmp_path / "asked.json", tmp_path / "robot", tmp_path / "items.npz")
    items = dict(np.load(tmp_path / "items.npz"))
    maskstream("shards lerobot --root robot --out shards --profile copy --workers 1 --set cameras=together")

    short = {"action": "action", "state": "observation.state"}
    loader = video_loader(
        tmp_path / "shards/train",
        component=("top.mp4", "wrist.mp4"),
        clip=VideoClip(frames=FRAMES, stride=STRIDE, size=96),
        augment=augment.CenterCrop(),
        patch=8,
        tubelet=1,
        fields=(
            *(Field(name=ours, delta_timestamps=ASKED[theirs], anchor="first") for ours, theirs in short.items()),
            "episode",
            "task",
        ),
        batch_size=3,
        seed=0,
    )
    seen, worst, padded = set(), 0.0, 0
    for batch in (one for _ in range(25) for one in loader):
        for row in range(3):
            number = int(batch.fields["episode"][row])
            first = sum(LENGTHS[:number]) + round(float(batch.pts_s[row, 0]) * FPS)
            for ours, theirs in short.items():
                np.testing.assert_array_equal(batch.fields[ours][row], items[theirs][first])
                np.testing.assert_array_equal(batch.fields[f"{ours}_is_pad"][row], items[f"{theirs}_is_pad"][first])
                padded += int(batch.fields[f"{ours}_is_pad"][row].sum())
            assert batch.fields["task"][row] == str(items["task"][first])
            for name in ("top", "wrist"):
                pictures = 255 * items[f"observation.images.{name}"][first].transpose(0, 2, 3, 1)
                own = batch.cameras[f"{name}.mp4"].video[row].numpy()
                worst = max(worst, float(np.abs(own - pictures).mean()))
                assert not items[f"observation.images.{name}_is_pad"][first].any()
            seen.add(first)
    print(f"{len(seen)} clips, {padded} values of padding, pixels {worst:.2f} levels apart")
    assert len(seen) > 20
    assert padded > 50
    assert worst < 1.5, "the same frames; the conversions to RGB differ by a level"
