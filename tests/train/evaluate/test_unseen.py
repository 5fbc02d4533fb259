"""What was trained on is refused as a test, by what it holds and not by its path, unless that is asked for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess.versions import divide, merge, remove
from maskstream.shards.format.manifest import Manifest
from maskstream.train import train
from maskstream.train.evaluate.unseen import check_unseen, find_shared_samples
from maskstream.train.finetune_run import finetune
from maskstream.train.recipes import chosen_recipe

from ...preprocess.versions.other_keys import with_other_keys
from ..labelled_pictures import SMALL, write_split


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the splits train and test, whose keys are the same, and a run on the first."""
    folder = tmp_path_factory.mktemp("unseen")
    for name, n, seed in (("train", 40, 0), ("test", 30, 1)):
        write_split(folder / "made" / name, n, seed).rename(folder / name)
    recipe = chosen_recipe("mae-tiny", SMALL)
    train(recipe, folder / "train", folder / "run", steps=1, device="cpu", threads=1, progress=False)
    return folder


def test_the_run_names_its_split(trained: Path) -> None:
    split = Manifest.load(trained / "train")
    about = {"location": str(trained / "train"), "version": 1, "fingerprint": split.fingerprint}
    assert json.loads((trained / "run" / "run.json").read_text())["data"] == about


@pytest.mark.parametrize("recorded", [True, False])
def test_a_copy_a_part_and_a_merge_of_what_was_trained_on_are_refused(
    trained: Path, tmp_path: Path, recorded: bool
) -> None:
    folder = tmp_path / "all"
    shutil.copytree(trained, folder)
    run = folder / "run"
    settings = json.loads((run / "run.json").read_text())
    about = settings.pop("data")
    if recorded:
        settings["data"] = about | {"location": str(folder / "train")}
    (run / "run.json").write_text(json.dumps(settings))
    split, test = Manifest.load(folder / "train"), Manifest.load(folder / "test")
    check_unseen(test, runs=[run], train=split)
    with pytest.raises(ValueError, match=r"train is the split that .*run was trained on \(fingerprint [0-9a-f]{32}\)"):
        check_unseen(split, runs=[run])
    check_unseen(split, runs=[run], train=split, same_split=True)
    with pytest.raises(ValueError, match=r"has the same samples as .*train \(--data\) \(fingerprint"):
        check_unseen(Manifest.load(trained / "train"), train=split)
    divide(folder / "train", 0.2)
    val = Manifest.load(folder / "val")
    n = len(val)
    with pytest.raises(ValueError, match=f"{n} of {n} samples of .*val, such as 's0.*', are also in version 1 of .*tr"):
        check_unseen(val, runs=[run])
    check_unseen(val, train=Manifest.load(folder / "train"))
    with pytest.raises(ValueError, match=rf"{40 - n} of {40 - n} samples of .*train, .* are also in version 1"):
        check_unseen(Manifest.load(folder / "train"), runs=[run])
    if recorded:
        with_other_keys(other := write_split(tmp_path / "other", 10, 4))
        merge(folder / "merged", [folder / "val", other])
        remove(folder / "merged", [val.key(0)])
        with pytest.raises(ValueError, match=f"{n - 1} of {n + 9} samples of .*merged, .* add --same-split"):
            check_unseen(Manifest.load(folder / "merged"), runs=[run])


@pytest.mark.slow
def test_a_run_knows_what_its_initial_weights_were_trained_on(trained: Path, tmp_path: Path) -> None:
    """Of a fine-tuned run the file of its encoder says it, so its base run may be gone; of others the run does."""
    shutil.copytree(trained, tmp_path / "all")
    folder, split = tmp_path / "all", Manifest.load(trained / "train")
    finetune(
        folder / "run",
        folder / "test",
        folder / "train",
        folder / "tuned",
        steps=1,
        device=torch.device("cpu"),
        same_split=True,
        progress=False,
        set=["batch_size=8"],
    )
    recipe = chosen_recipe("mae-tiny", SMALL)
    weights = folder / "run/model.safetensors"
    train(recipe, folder / "test", folder / "more", steps=1, initial=weights, device="cpu", threads=1, progress=False)
    for run in ("more", "tuned"):
        if run == "tuned":
            shutil.rmtree(folder / "run")
        with pytest.raises(ValueError, match=rf"train is the split that .*{run} was trained on \(fingerprint"):
            check_unseen(split, runs=[folder / run])
        with pytest.raises(ValueError, match=rf"test is the split that .*{run} was trained on"):
            check_unseen(Manifest.load(folder / "test"), runs=[folder / run])


def test_samples_with_equal_keys_and_other_bytes_are_not_shared(trained: Path) -> None:
    one, other = (Manifest.load(trained / name) for name in ("train", "test"))
    assert {*one.keys(range(30))} == {*other.keys(range(30))}
    assert len(find_shared_samples(one, other)) == 0
    assert np.array_equal(find_shared_samples(one, one), np.arange(40))


def test_the_commands_refuse_before_any_work_and_measure_if_told(trained: Path) -> None:
    run, data, test = (str(trained / name) for name in ("run", "train", "test"))
    commands = (
        ["evaluate", run, "--data", data],
        ["report", run, "--data", test, "--unseen", data],
        ["probe", run, "--data", test, "--test", data],
        ["probe", run, "--data", data, "--test", data],
        ["finetune", run, "--data", test, "--test", data],
    )
    for words in commands:
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, ValueError)
        assert "a score on training samples measures memorisation" in str(result.exception)
        assert "made by `maskstream split`, or add --same-split (same_split=True)" in str(result.exception)
    assert not (trained / "run" / "evaluation.json").exists()
    told = CliRunner().invoke(app, [*commands[0], "--same-split"])
    assert told.exit_code == 0
    with pytest.raises(ValueError, match="is the split that"):
        finetune(run, test, data, trained / "tuned", device=torch.device("cpu"))
    assert not (trained / "tuned").exists()
