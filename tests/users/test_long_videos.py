"""Long videos and a list of their scenes: parts become samples, some are held out, and a run is measured on these.

The user has hours of recordings, a csv of start and end from a scene detector, and no wish to cut files with ffmpeg.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipelines import VideoClip, augment, video_loader
from maskstream.shards import Manifest

from .conftest import Command, texture, write_video

SCENES, SCENE_S, RATE = 24, 10, 20


def scene(number: int) -> np.ndarray:
    """Its picture, whose first half is of the grey that tells the scene, and whose second half is a texture."""
    picture = texture(number)
    picture[:24] = 30 + 8 * number
    return picture


@pytest.mark.slow
def test_scenes_of_a_long_video_are_samples(maskstream: Command, tmp_path: Path) -> None:
    stills = [scene(number) for number in range(SCENES)]
    write_video(
        tmp_path / "long/day.mp4",
        (np.concatenate([s[:24], np.roll(s[24:], i % 64, 1)]) for s in stills for i in range(SCENE_S * RATE)),
        rate=RATE,
    )
    with (tmp_path / "long/scenes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "start", "end", "label", "scene"])
        rows.writerows(
            ["day.mp4", SCENE_S * n + 1, SCENE_S * n + 6, "odd" if n % 2 else "even", n] for n in range(SCENES)
        )

    maskstream("shards folder --root long --out shards --val 0.25 --val-by sample --val-seed 3 --workers 1")
    train, val = (Manifest.load(tmp_path / "shards" / name) for name in ("train", "val"))
    assert (len(train), len(val)) == (18, 6)
    seen = []
    for name in ("train", "val"):
        clip = VideoClip(frames=8, stride=12, size=32)
        whole = {"augment": augment.CenterCrop(), "fields": ("scene",), "batch_size": 6, "seed": 0}
        loader = video_loader(tmp_path / "shards" / name, clip=clip, **whole)
        for batch in loader:
            for video, number, label in zip(batch.video, batch.fields["scene"], batch.label.tolist(), strict=True):
                assert abs(video[:, :12].float().mean((1, 2, 3)) - (30 + 8 * int(number))).max() < 4
                assert train.info["label_names"][label] == ("odd" if int(number) % 2 else "even")
                seen.append(int(number))
    assert sorted(seen) == list(range(SCENES))
    maskstream("train videomae-tiny --data shards/train --out run --steps 20 --set batch_size=4")
    measured = maskstream("evaluate run --data shards/val --json").json["evaluations"][0]
    assert measured["data"]["fingerprint"] == val.fingerprint
    assert measured["step"] == 20
    assert measured["scores"][0]["value"] < 1, "a guess of the mean colour has 1"
