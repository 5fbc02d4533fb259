"""`maskstream train`: how often it saves, how many checkpoints stay, and damage in one line."""

import re

import pytest
import torch
from safetensors.torch import load_file

from maskstream.train import read_metrics

from ..web_server import serving
from .test_cli import run, shards  # noqa: F401 - a fixture

SMALL = [
    *("clip.frames=4", "clip.size=32", "patch=8", "batch_size=2"),
    *("model.width=16", "model.depth=1", "model.heads=2"),
    *("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2"),
]


@pytest.fixture
def train(monkeypatch, tmp_path, shards):  # noqa: F811
    """The exit code of a small training, with more words on its command line."""
    words = ["--out", tmp_path / "run", "--device", "cpu", "--steps", 7]
    words += [word for assignment in SMALL for word in ("--set", assignment)]
    return lambda *more, data=shards[1] / "train": run(
        monkeypatch, "train", "videomae-tiny", "--data", data, *words, *more
    )


def test_saving_and_keeping_are_options_and_damage_is_one_line(train, tmp_path, capsys, caplog):
    assert train("--save-every", 2, "--keep", 3) == 0
    saved = sorted((tmp_path / "run/checkpoints").iterdir())
    assert [path.name for path in saved] == ["step-00000004", "step-00000006", "step-00000007"]
    (saved[-1] / "optimiser.safetensors").write_bytes(b"")
    assert train("--save-every", 2) == 0
    assert re.search(r"using .*step-00000006, because .* step-00000007: optimiser.safetensors has 0 bytes", caplog.text)
    assert [m.step for m in read_metrics(tmp_path / "run/metrics.jsonl")] == list(range(1, 8))
    assert [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())] == [
        "step-00000006",
        "step-00000007",
    ]
    for path in (tmp_path / "run/checkpoints").iterdir():
        (path / "state.json").unlink()
    capsys.readouterr()
    assert train() == 1
    assert re.match(
        r"opening .*\nerror no checkpoint in .* is intact: .*state.json is missing.*--no-resume",
        capsys.readouterr().err,
    )
    assert train("--no-resume") == 0


@pytest.mark.parametrize("option", ["--save-every", "--keep"])
def test_less_than_one_is_a_wrong_command_line(train, option):
    assert train(option, 0) == 2


def test_a_loss_that_is_not_finite_is_one_line(train, capsys):
    assert train("--set", "base_lr=1e30") == 1
    error = capsys.readouterr().err.partition("error ")[2]
    assert re.match(r"the (loss|gradient norm) of step \d is (nan|inf) at lr .* with --on-nan skip\n$", error)


def test_equal_runs_write_equal_files(train, tmp_path):
    for name in ("one", "other"):
        assert train("--steps", 2, "--out", tmp_path / name) == 0
    for name in (
        "model.safetensors",
        *(f"checkpoints/step-00000002/{kind}.safetensors" for kind in ("model", "optimiser")),
    ):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name


def test_a_split_at_a_url_trains_the_same_model(train, tmp_path, shards):  # noqa: F811
    assert train("--steps", 2) == 0
    with serving(shards[1]) as server:
        assert train("--steps", 2, "--out", tmp_path / "url", data=f"{server.url}/train") == 0
    here, there = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "url"))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
