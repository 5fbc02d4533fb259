"""Any step again is, bit for bit, the batch that the model had, also of a part and of a split that has changed."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import DataMixture, Loader, masks
from maskstream.pipelines.stream.batch import Batch, _mapped
from maskstream.preprocess.curate import curate
from maskstream.preprocess.versions import append, erase, remove
from maskstream.shards.errors import ResumeError, SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.train import read_metrics, replay, train
from maskstream.train.core.data import read_splits
from maskstream.train.core.metrics import StepMetrics
from maskstream.train.core.replay import find_worst_steps
from maskstream.train.core.sample_losses import SAMPLE_LOSSES, read_step_losses, worst_samples
from maskstream.train.core.step import Stepper
from maskstream.train.core.versions import VERSIONS

from ...pipelines.every_modality import write_split
from ...preprocess.versions.other_keys import with_other_keys
from ..test_every_recipe import CUTS as EVERY_CUTS
from .test_data_version import CUTS

SETTINGS: dict[str, Any] = {"device": "cpu", "threads": 1, "progress": False}


def digest(batch: Batch) -> str:
    """The sha256 of all values of a batch."""
    whole = _mapped(batch, lambda tensor: tensor.numpy().tobytes() if tensor.numel() else b"")
    return hashlib.sha256(pickle.dumps([whole, batch.key])).hexdigest()


def train_noted(
    recipe: str, data: Path | DataMixture, run: Path, cuts: tuple[str, ...], *parts: int, **options: Any
) -> list[list[str]]:
    """The digests of the batches of each step of a run, which is made in parts that end after these steps."""
    seen: list[list[str]] = []
    step = Stepper.step

    def noted(self: Stepper, batches: Any, **given: Any) -> Any:
        seen.append([digest(batch) for batch in batches])
        return step(self, batches, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", noted)
        for steps in parts:
            train(recipe, data, run, steps=steps, **SETTINGS, set=cuts, save_every=2, seed=3, **options)
    return seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[list[str]]]:
    """A run that was stopped once, its split, and the digests of the batches of each step."""
    folder = tmp_path_factory.mktemp("replay")
    split = write_split("image", folder)
    return folder / "run", split, train_noted("mae-tiny", split, folder / "run", (*CUTS, "accumulate=2"), 3, 6)


@pytest.fixture
def run(trained: tuple[Path, Path, list[list[str]]], tmp_path: Path) -> Path:
    """A copy of the run."""
    return shutil.copytree(trained[0], tmp_path / "run")


def digests(run: Path, step: int, **options: Any) -> list[str]:
    return [digest(batch) for batch in replay(run, step, **options).batches]


def test_steps_are_the_batches_that_were_trained_on(trained: tuple[Path, Path, list[list[str]]]) -> None:
    run, split, seen = trained
    assert len(seen) == 6
    assert len({one for step in seen for one in step}) == 12
    assert [digests(run, step + 1) for step in range(6)] == seen
    other = split.with_name("other")
    shutil.copytree(split, other)
    with_other_keys(other)
    keys = [key for batch in replay(run, 5).batches for key in batch.key]
    append(split, other)
    remove(split, keys[:1])
    assert Manifest.load(split).version == 3
    assert [digests(run, step + 1) for step in range(6)] == seen
    shutil.copytree(split, split.with_name("moved"))
    assert digests(run, 4, data=split.with_name("moved")) == seen[3]
    with pytest.raises(ResumeError, match=r"version 3 of .* has different samples from the run"):
        replay(run, 1, version=3)


def test_each_step_is_shown_as_it_was_while_its_split_changed(tmp_path: Path) -> None:
    """Also after samples were removed, appended and erased between resumes, in one split and in a mixture of two."""
    one, other = (write_split("image", tmp_path / name) for name in ("one", "other"))
    with_other_keys(other)
    for data, name in ((one, "single"), (DataMixture.of([one, other]), "mixed")):
        run = tmp_path / name
        seen = train_noted("mae-tiny", data, run, CUTS, 4)
        keys = [replay(run, step + 1).keys for step in range(4)]
        remove(one, keys[0][:1])
        seen += train_noted("mae-tiny", data, run, CUTS, 8)
        removed_again = [replay(run, step + 1) for step in range(8)]
        assert [[digest(batch) for batch in made.batches] for made in removed_again] == seen
        more = write_split("image", tmp_path / f"more {name}")
        with_other_keys(more, f"{name}-")
        append(one, more)
        victim = next(key for key in keys[1] if key in Manifest.load(one).keys(range(len(Manifest.load(one)))))
        erase(one, [victim])
        seen += train_noted("mae-tiny", data, run, CUTS, 10)
        for step in range(10):
            made = replay(run, step + 1)
            assert made.recorded
            had = removed_again[step].keys if step < 8 else made.keys
            gone = {row for row, key in enumerate(had) if key == victim}
            assert {row: (one.place, one.key, one.why) for row, one in made.replaced.items()} == {
                row: (row, "", "erased") for row in gone
            }
            assert gone or [digest(batch) for batch in made.batches] == seen[step]
            assert gone or step != 1
        if name == "single":
            assert replay(run, 1, version=Manifest.load(one).version - 2).replaced[0].why == "removed"


def test_an_erasure_during_a_replay_replaces_the_erased_sample_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, named = write_split("image", tmp_path), Loader.name_next_samples
    train_noted("mae-tiny", split, tmp_path / "run", CUTS, 3)
    before = replay(tmp_path / "run", 2)
    victim = before.keys[0]

    def name_and_erase(loader: Loader[Any]) -> list[str | SampleError]:
        names = named(loader)
        erase(split, [victim])
        return names

    monkeypatch.setattr(Loader, "name_next_samples", name_and_erase)
    made = replay(tmp_path / "run", 2)
    assert {row: (one.key, one.why) for row, one in made.replaced.items()} == {0: ("", "erased")}
    assert made.keys[1:] == before.keys[1:]
    assert victim not in made.keys
    for ours, theirs in zip(made.batches, before.batches, strict=True):
        assert torch.equal(ours.image[1:], theirs.image[1:])


def test_the_worst_sample_is_one_that_was_there(tmp_path: Path) -> None:
    """After it was removed, too; once it is erased, the command and the page say that it is gone."""
    split, run = write_split("image", tmp_path), tmp_path / "run"
    options: dict[str, Any] = SETTINGS | {"set": CUTS, "save_every": 1, "losses": True}

    def worst() -> dict[str, Any]:
        done = CliRunner().invoke(app, ["replay", str(run), "--worst", "1", "--step", "1", "--json"])
        assert done.exit_code == 0, done.output
        (found,) = json.loads(done.stdout)["worst_samples"]
        return dict(found)

    train("mae-tiny", split, run, steps=4, **options)
    losses = np.load(run / SAMPLE_LOSSES)
    losses[0, 1] = 9
    np.save(run / SAMPLE_LOSSES, losses)
    first = worst()
    assert first["step"] == 1
    remove(split, [first["key"]])
    train("mae-tiny", split, run, steps=6, **options)
    assert worst() == first
    assert replay(run, 1).keys[1] == first["key"]
    erase(split, [first["key"]])
    assert worst() == {"step": 1, "key": "", "loss": 9.0, "gone": "a sample that has been erased since"}
    page = (run / "replay.html").read_text()
    assert "instead of a sample that has been erased since" in page
    assert "belongs to a sample that has been erased since, which cannot be shown" in page
    said = CliRunner().invoke(app, ["replay", str(run), "--step", "1"]).stdout
    assert "step 1: row 2 shows another sample instead of a sample that has been erased since" in said


def test_a_run_without_a_record_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As those of earlier releases: the version that it read last is shown, and what is removed from it is named."""
    split, run = write_split("image", tmp_path), tmp_path / "run"
    train_noted("mae-tiny", split, run, CUTS, 4)
    key = replay(run, 1).keys[0]
    remove(split, [key])
    train_noted("mae-tiny", split, run, CUTS, 6)
    (run / VERSIONS).write_text("{}")
    made = replay(run, 1)
    assert "data_versions.json is damaged" in caplog.text
    assert not made.recorded
    assert made.keys[0] != key
    assert (made.replaced[0].key, made.replaced[0].why) == (key, "removed")
    (run / VERSIONS).unlink()
    said = CliRunner().invoke(app, ["replay", str(run), "--step", "1"]).stdout
    assert f"instead of {key}, which was removed" in said
    assert "The run did not record the version that this step read" in said
    train_noted("mae-tiny", split, run, CUTS, 8)
    assert [replay(run, step).recorded for step in (6, 7)] == [False, True]


def test_parts_of_ranks_are_those_of_the_whole(run: Path) -> None:
    path = run / "run.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"ranks": 2}))
    (whole, more), parts = replay(run, 2).batches, [replay(run, 2, rank=rank).batches for rank in (0, 1)]
    assert [len(batch) for batch in (whole, more)] == [2, 2]
    for at, batch in enumerate((whole, more)):
        assert [key for part in parts for key in part[at].key] == batch.key
        assert torch.equal(torch.cat([part[at].image for part in parts]), batch.image)  # type: ignore[attr-defined]


def test_the_command_draws_steps_and_the_worst(run: Path) -> None:
    done = CliRunner().invoke(app, ["replay", str(run), "--step", "2", "--worst", "1", "--samples", "3", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    worst = find_worst_steps(read_metrics(run / "metrics.jsonl"), 1)[0][0].step
    assert [one["step"] for one in told["steps"]] == list(dict.fromkeys([2, worst]))
    assert told["steps"][0]["keys"] == [key for batch in replay(run, 2).batches for key in batch.key]
    page = (run / "replay.html").read_text()
    assert page.count("<title>") == 1
    assert all(key.split("/")[-1] in page for key in told["steps"][0]["keys"][:3])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--step", "7"], "the run in .* has steps 1 to 6"),
        (["--step", "1", "--rank", "1"], "had ranks 0 to 0"),
        ([], "choose a step with --step, or select steps with --worst"),
    ],
)
def test_what_there_is_not_is_refused(run: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["replay", str(run), *options])
    assert done.exit_code == 1
    assert isinstance(done.exception, ValueError)
    with pytest.raises(ValueError, match=said):
        raise done.exception


def test_parts_of_ones_own_that_are_not_here_are_named_with_what_to_do(run: Path) -> None:
    path = run / "run.json"
    about = json.loads(path.read_text())
    about["recipe"]["data"]["mask"] = {"kind": "ownparts.masks:Checkers"}
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"\(No module named 'ownparts'\); add the folder of .* to PYTHONPATH$"):
        replay(run, 1)


def test_masks_that_followed_losses_and_loaders_of_ones_own_are_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run / "run.json"
    about = json.loads(path.read_text())
    about.pop("data")
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"trained with a custom loader; move that loader with loader\.seek"):
        replay(run, 1)
    monkeypatch.setattr("maskstream.train.core.replay.find_channels", lambda data: [masks.Feedback(2, (0.0, 0.0))])
    with pytest.raises(ValueError, match="depends on the run's losses; these are not recorded"):
        replay(run, 1)


def test_the_worst_stand_out_from_those_around_them() -> None:
    losses = [9.0, 8.0, 7.0, 6.0, 9.0, 4.0, 3.0, float("nan"), 1.0]
    made = [
        StepMetrics(step=n, epoch=0, loss=loss, parts={}, lr=0.1, grad_norm=1.0, clips_per_s=1.0, data_wait_share=0.0)
        for n, loss in enumerate(losses, start=1)
    ]
    assert [step.step for step, _ in find_worst_steps(made, 2)] == [8, 1]
    assert [step.step for step, _ in find_worst_steps(made[1:6], 1)] == [5]


def test_losses_of_samples_are_those_of_each_alone(run: Path, tmp_path: Path) -> None:
    """They add up to the step's, belong to the samples that `replay` gives, and a resumed run goes on."""
    split = Path(json.loads((run / "run.json").read_text())["data"]["location"])
    settings = SETTINGS | {"set": (*CUTS, "accumulate=2"), "seed": 3, "losses": True, "precision": "fp32"}
    out = tmp_path / "recorded"
    train("mae-tiny", split, out, steps=2, **settings)
    begun = np.load(out / SAMPLE_LOSSES)
    train("mae-tiny", split, out, steps=4, **settings)
    recorded = np.load(out / SAMPLE_LOSSES)
    assert (begun.shape, recorded.shape) == ((2, 4), (4, 4))
    assert (recorded[:2] == begun).all()
    losses = [step.loss for step in read_metrics(out / "metrics.jsonl")]
    np.testing.assert_allclose(recorded.mean(1), losses, rtol=1e-5)  # each has as many hidden patches
    first = replay(out, 1)
    model = first.recipe.build(seed=3)
    with torch.no_grad():
        alone = [
            float(model.loss(_mapped(batch, lambda values, row=row: values[row : row + 1])).loss())
            for batch in first.batches
            for row in range(len(batch))
        ]
    np.testing.assert_allclose(recorded[0], alone, rtol=1e-4)
    (step, place, loss), *_ = worst_samples(out, 3)
    over = recorded - np.median(np.median(recorded, axis=1))
    assert (step - 1, place) == divmod(int(over.argmax()), 4)
    assert loss == recorded[step - 1, place]
    done = CliRunner().invoke(app, ["replay", str(out), "--step", str(step), "--worst", "1", "--json"])
    told = json.loads(done.output)["worst_samples"]
    key = [key for batch in replay(out, step).batches for key in batch.key][place]
    assert told == [{"step": step, "key": key, "loss": loss}]
    page = (out / "replay.html").read_text()
    assert f"in step {step}" in page
    for row in recorded[step - 1]:
        assert f"<dt>Loss</dt><dd>{row:.4g}<" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "modality"), [("mgmae-tiny", "video"), ("mosaicbert-tiny", "text"), ("native-tiny", "image")]
)
def test_a_hundred_steps_of_three_kinds_of_runs(recipe: str, modality: str, tmp_path: Path) -> None:
    """Flow from the codec, packed text, and packed rows of pictures; after samples were appended and removed, too."""
    split, run = write_split(modality, tmp_path), tmp_path / "run"
    seen = train_noted(recipe, split, run, EVERY_CUTS[recipe.split("-")[0]], 20, 34)
    assert len(seen) == 34
    assert [digests(run, step + 1) for step in range(34)] == seen
    other = shutil.copytree(split, tmp_path / "other")
    with_other_keys(other)
    append(split, other)
    remove(split, replay(run, 1).batches[0].key[:1])
    assert [digests(run, step + 1) for step in range(33, -1, -1)] == seen[::-1]
    erase(split, replay(run, 2).batches[0].key[-1:])
    made = [replay(run, step + 1) for step in range(34)]
    assert made[1].replaced
    for step, one in enumerate(made):
        assert {gone.why for gone in one.replaced.values()} <= {"erased"}
        assert one.replaced or [digest(batch) for batch in one.batches] == seen[step]


def test_the_worst_samples_stand_out_from_the_steps_around(tmp_path: Path) -> None:
    """Not the first ones, whose losses are the largest; what is not finite is the worst, what is not done is none."""
    rng = np.random.default_rng(0)
    losses = np.linspace(9, 1, 6000)[:, None] + rng.uniform(0, 0.1, (6000, 4))
    losses[4096, 2], losses[5000, 1], losses[30, 3] = losses[4096, 2] + 2, np.nan, losses[30, 3] + 1
    losses[5500:] = 0
    np.save(tmp_path / SAMPLE_LOSSES, losses.astype(np.float32))
    found = worst_samples(tmp_path, 3)
    assert [(step, place) for step, place, _ in found] == [(5001, 1), (4097, 2), (31, 3)]
    assert found[1][2] == np.float32(losses[4096, 2])
    assert worst_samples(tmp_path / "none", 3) == []
    np.testing.assert_allclose(read_step_losses(tmp_path, 31), losses[30], rtol=1e-6)
    assert [read_step_losses(tmp_path / name, step) for name, step in (("", 5501), ("none", 1))] == [None, None]


@pytest.mark.slow
def test_a_run_goes_on_after_its_split_was_curated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the version that it began with as if nothing had been, or in the new one as a run that began there, if it is
    asked for. What is removed later goes from both.
    """
    split = write_split("image", tmp_path)

    def goes_on(folder: str, *parts: int, **options: Any) -> list[list[str]]:
        if (tmp_path / "begun").exists():
            shutil.copytree(tmp_path / "begun", tmp_path / folder)
        return train_noted("mae-tiny", split, tmp_path / folder, CUTS, *parts, **options)

    whole, fresh = tmp_path / "whole", tmp_path / "fresh"
    before = train_noted("mae-tiny", split, whole, CUTS, 8)
    assert goes_on("begun", 3) == before[:3]
    curated = curate(split, keep="brightness>p40")
    assert curated.version == Manifest.load(split).version == 2
    after = train_noted("mae-tiny", split, fresh, CUTS, 8)
    assert after[3:] != before[3:]
    assert goes_on("unasked", 5, 8) == goes_on("old", 5, 8, data_version=1) == before[3:]
    assert read_splits(tmp_path / "unasked")[0]["version"] == 1
    caplog.clear()
    assert goes_on("new", 5, data_version=2) == after[3:5]
    assert "continues in version 2 as requested" in caplog.text
    assert train_noted("mae-tiny", split, tmp_path / "new", CUTS, 8) == after[5:]
    manifest = curated.measures.manifest
    gone = {*manifest.keys([int(curated.measures.index[one.place]) for one in curated.gone])}
    shown = [
        {key for step in range(4, 9) for one in replay(run, step).batches for key in one.key}
        for run in (whole, tmp_path / "new")
    ]
    assert shown[0] & gone
    assert not shown[1] & gone
    keys = [{key for one in replay(whole, step).batches for key in one.key} for step in range(4, 9)]
    removed = min(shown[0] & gone)
    assert remove(split, [removed]).version == 3
    without = goes_on("without", 8)
    assert [new != old for new, old in zip(without, before[3:], strict=True)] == [removed in step for step in keys]
    assert read_splits(tmp_path / "without")[0]["version"] == 1
