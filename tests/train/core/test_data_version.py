"""A run that is continued stays with the samples that it began with; a new one reads those of the version asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess.versions import append, remove
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.train import read_metrics, train

from ...pipelines.every_modality import write_split
from ...preprocess.versions.other_keys import with_other_keys

CUTS = ("data.size=32", "data.patch=8", "batch_size=2", "model.width=16", "model.depth=1", "model.heads=2")
CUTS += (
    "model.decoder_width=16",
    "model.decoder_depth=1",
    "model.decoder_heads=2",
    "schedule.steps=null",
    "schedule.epochs=2",
)


def loader_state(run: Path) -> dict[str, object]:
    state = json.loads((max((run / "checkpoints").iterdir()) / "state.json").read_text())
    return dict(state["loader"])


def test_a_run_goes_on_and_a_new_one_chooses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = write_split("image", tmp_path)
    other = tmp_path / "other"
    shutil.copytree(one, other)
    with_other_keys(other)
    samples = len(Manifest.load(one))
    settings = {"set": CUTS, "device": "cpu", "threads": 1, "progress": False, "save_every": 3}
    train("mae-tiny", one, tmp_path / "whole", **settings)  # type: ignore[arg-type]
    whole = [step.loss for step in read_metrics(tmp_path / "whole" / "metrics.jsonl")]
    train("mae-tiny", one, tmp_path / "run", steps=3, **settings)  # type: ignore[arg-type]
    append(one, other)
    caplog.clear()
    result = train("mae-tiny", one, tmp_path / "run", **settings)  # type: ignore[arg-type]
    assert caplog.text.count("opening version 1") == 1
    assert result.step == len(whole) == 2 * (samples // 2)
    state = loader_state(tmp_path / "run")
    assert (state["dataset_version"], state["epoch"]) == (1, 2)
    words = [word for cut in CUTS for word in ("--set", cut)]
    command = ["train", "mae-tiny", "--data", str(one), "--steps", "1", "--device", "cpu", *words, "--out"]
    for version, expected in (("1", 1), (None, 2)):
        chosen = [] if version is None else ["--data-version", version]
        done = CliRunner().invoke(app, [*command, str(tmp_path / f"new{version}"), *chosen])
        assert done.exit_code == 0, done.output
        assert loader_state(tmp_path / f"new{version}")["dataset_version"] == expected
    with pytest.raises(
        ResumeError, match=r"was trained on version 1 of its split, but version 2 of .* has different samples"
    ):
        train("mae-tiny", one, tmp_path / "run", data_version=2, steps=99, **settings)  # type: ignore[arg-type]
    remove(one, Manifest.load(one).keys([0]))
    train("mae-tiny", one, tmp_path / "newNone", steps=2, **settings)  # type: ignore[arg-type]
    assert loader_state(tmp_path / "newNone")["dataset_version"] == 3
