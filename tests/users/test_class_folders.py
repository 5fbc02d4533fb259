"""Class folders of one's own videos: shards with a validation split, a pre-training, a probe, and a model for others.

The user has red and blue clips of a camera in two folders, and colleagues who work with transformers.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.train import load_model

from .conftest import Command, texture, write_video

TINTS = {"blue": (0.2, 0.2, 1.0), "red": (1.0, 0.2, 0.2)}
CUTS = " ".join(
    f"--set {word}"
    for word in (
        *("clip.frames=4", "clip.size=32", "data.patch=8", "batch_size=4"),
        *("model.width=32", "model.depth=1", "model.heads=2"),
        *("model.decoder_width=32", "model.decoder_depth=1", "model.decoder_heads=2"),
    )
)


@pytest.mark.slow
def test_own_clips_become_a_model_that_transformers_reads(maskstream: Command, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for name, tint in TINTS.items():
        for number in range(12):
            still = (texture(number) * np.array(tint)).astype(np.uint8)
            write_video(tmp_path / f"clips/{name}/{number}.mp4", (np.roll(still, 2 * i, 1) for i in range(30)))

    said = maskstream("shards folder --root clips --out shards --val 0.25 --workers 1").text
    assert "samples 18" in said
    assert "samples 6" in said
    assert "samples_per_label blue 9, red 9" in maskstream("inspect shards/train").text
    assert "writes it for transformers, as VideoMAEForPreTraining" in maskstream("recipes videomae-base").text
    maskstream(f"train videomae-base --data shards/train --out run --steps 6 --seed 1 {CUTS}")
    probed = maskstream("probe run --data shards/train --test shards/val --probes linear --seeds 1 --json").json
    assert (probed["train"], probed["test"], probed["majority"]) == (18, 6, 0.5)
    assert {one["mean"] for one in probed["reached"] if one["encoder"] == "pre-trained"} == {1.0}
    maskstream("export run --out exported")

    theirs = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path / "exported").eval()
    ours = load_model(tmp_path / "run/model.safetensors").eval()
    loader = video_loader(
        tmp_path / "shards/val",
        clip=VideoClip(frames=4, stride=4, size=32),
        mask=masks.Tube(ratio=0.9),
        patch=8,
        batch_size=2,
        seed=0,
    )
    batch = next(iter(loader))
    with torch.no_grad():
        features = theirs.videomae(batch.pixel_values()).last_hidden_state
        assert torch.allclose(features.mean(1), ours.features(batch), atol=1e-4)
