"""Trainings whose samples change in size: what the model makes of smaller ones, resumes, replays, and refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maskstream.pipelines import masks
from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.shards.errors import ResumeError
from maskstream.train import replay, train
from maskstream.train.core.metrics import read_metrics
from maskstream.train.core.recipe import Recipe
from maskstream.train.papers.jepa.vjepa import VideoJepaConfig
from maskstream.train.papers.jepa.vjepa21 import DenseJepaConfig
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ..test_every_recipe import CUTS
from .test_replay import SETTINGS, digests, train_noted
from .test_torchrun import torchrun

SIZES: dict[str, Any] = {"width": 48, "depth": 2, "heads": 4, "predictor_width": 24, "predictor_depth": 1}
CONFIGS = {
    "turned": VideoJepaConfig(**SIZES, predictor_heads=2),
    "added": VideoJepaConfig(**SIZES, predictor_heads=2, places="added"),
    "dense": DenseJepaConfig(**SIZES, predictor_heads=2, levels=2, context=masks.Linear(start=0.5, end=1.0)),
}


def grown(name: str, *points: tuple[float, float]) -> str:
    """The assignment of a setting that has these values from these progresses on."""
    level = [point for k, point in enumerate(points) for point in ((point[0], points[max(k - 1, 0)][1]), point)]
    return f'data.over_run={{"{name}": {{"kind": "Piecewise", "points": {json.dumps(level)}}}}}'


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_smaller_clips_are_what_a_model_of_their_size_makes_of_them(config: VideoJepaConfig) -> None:
    """With the same weights: loss and gradients, bit by bit or nearly so."""
    large, small = TokenGrid.video(8, 32, 48, patch=8), TokenGrid.video(4, 24, 16, patch=8)
    video = torch.randint(256, (2, 4, 24, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = masks.Random(ratio=0.5).of_keys(small, ["a", "b"])
    batch = VideoBatch(video=video, mask=mask, flow=None, pts_s=torch.zeros(2, 4), key=["a", "b"], label=torch.zeros(2))
    made = config.build({"video": large}, seed=1).double()
    own = config.build({"video": small}, seed=2).double()
    own.load_state_dict(made.state_dict())
    for model in (made, own):
        model.loss(batch).loss().backward()
    for (name, one), other in zip(made.named_parameters(), own.parameters(), strict=True):
        if one.grad is not None:
            assert torch.allclose(one.grad, other.grad, atol=1e-12), name  # type: ignore[arg-type]
    torch.testing.assert_close(made.loss(batch).loss(), own.loss(batch).loss())
    assert made.reconstructed(batch).video.shape == video.shape
    with pytest.raises(ValueError, match="the model takes"):
        made.loss(VideoBatch(**{**vars_of(batch), "video": video[:, :, :20]}))


def vars_of(batch: VideoBatch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in ("video", "mask", "flow", "pts_s", "key", "label")}


def test_models_of_one_size_refuse_by_name() -> None:
    size = chosen_recipe("mae-tiny").data.size  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"ImageAutoencoderConfig needs samples of one size, but data.over_run chan"):
        chosen_recipe("mae-tiny", (grown("size", (0, size // 2), (0.5, size)),))
    with pytest.raises(ValueError, match=r"SaltConfig needs samples of one size"):
        chosen_recipe("salt-tiny", (grown("clip.frames", (0, 4), (0.5, 8)),))
    with pytest.raises(
        ValueError, match=r"from progress 0 on, a sample has \(8, 8, 8\) tokens, but the model is built for"
    ):
        chosen_recipe("vjepa2-tiny", (grown("clip.frames", (0, 16), (0.5, 8)),))
    recipe = chosen_recipe("vjepa2-tiny", (grown("clip.frames", (0, 4), (0.5, 8)),))
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.slow
def test_a_run_goes_on_and_is_made_again_across_a_change_of_phase(tmp_path: Path) -> None:
    split, run = write_split("video", tmp_path / "data"), tmp_path / "run"
    small = chosen_recipe("vjepa2-tiny", CUTS["vjepa2"]).data.clip  # type: ignore[attr-defined]
    cuts = (*CUTS["vjepa2"], "batch_size=6", grown("clip.frames", (0, 2), (0.5, small.frames)))
    seen = train_noted("vjepa2-tiny", split, run, cuts, 8, keep=9)
    weights = load_file(run / "model.safetensors")
    assert [digests(run, step + 1) for step in range(7, -1, -1)] == seen[::-1]
    lengths = [replay(run, step + 1).batches[0].video.shape[1] for step in range(8)]
    assert lengths == [2] * 4 + [small.frames] * 4
    about = json.loads((run / "run.json").read_text())
    for ranks in (2, 3):
        (run / "run.json").write_text(json.dumps(about | {"ranks": ranks}))
        for step in (1, 4, 5, 8):
            parts = [replay(run, step, rank=rank).batches[0] for rank in range(ranks)]
            assert torch.equal(torch.cat([part.video for part in parts]), replay(run, step).batches[0].video)
    (run / "run.json").write_text(json.dumps(about))
    for left in (2, 4, 6):  # in the first phase, between both, and in the second
        again = shutil.copytree(run, tmp_path / f"again {left}")
        (again / "model.safetensors").unlink()
        for step in range(left + 2, 9, 2):
            shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
        assert train_noted("vjepa2-tiny", split, again, cuts, 8, keep=9) == seen[left:]
        found = load_file(again / "model.safetensors")
        assert all(torch.equal(weights[name], found[name]) for name in weights)
    with pytest.raises(ResumeError, match="steps: saved 8, here 10"):
        train("vjepa2-tiny", split, run, steps=10, **SETTINGS, set=cuts, seed=3)
    other = (*cuts[:-1], grown("clip.frames", (0, 2), (0.75, small.frames)))
    with pytest.raises(ResumeError, match="over_run"):
        train("vjepa2-tiny", split, run, steps=8, **SETTINGS, set=other, seed=3)


@pytest.mark.slow
def test_ranks_of_torchrun_change_phase_together(eleven: Path, tmp_path: Path) -> None:
    """Two ranks train as one does, and a run that goes on from before the change ends with the same weights."""
    cuts = (*CUTS["vjepa21"], grown("clip.frames", (0, 2), (0.5, 4)), "clip.frames=4")
    settings = [word for cut in cuts for word in ("--set", cut)]

    def trained(ranks: int, out: Path) -> None:
        words = ("--device", "cpu", "--steps", 6, "--seed", 3, "--save-every", 2)
        command = ("-m", "maskstream", "train", "vjepa21-large", "--data", eleven, "--out", out)
        status, output = torchrun(ranks, *command, "--batch-size", 4 // ranks, *words, *settings)
        assert status == 0, output

    for ranks in (1, 2):
        trained(ranks, tmp_path / f"{ranks}")
    one, two = (
        [(line.loss, line.parts["context"]) for line in read_metrics(tmp_path / f"{ranks}" / "metrics.jsonl")]
        for ranks in (1, 2)
    )
    assert len(one) == 6
    assert np.array(one) == pytest.approx(np.array(two), rel=1e-3)
    again = shutil.copytree(tmp_path / "2", tmp_path / "again")
    (again / "model.safetensors").unlink()
    for step in (4, 6):
        shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
    trained(2, again)
    whole, found = (load_file(folder / "model.safetensors") for folder in (tmp_path / "2", again))
    assert all(torch.equal(whole[name], found[name]) for name in whole)
