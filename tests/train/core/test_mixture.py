"""Runs on mixtures: what they say of themselves, that they go on exactly, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pages.report.report import _sources, run_curves
from maskstream.pipelines import masks
from maskstream.pipelines.modalities.mixture import DataMixture, MixtureSource, OpenMixture
from maskstream.pipelines.modalities.packed.batch import PackedBatch
from maskstream.pipelines.stream.batch import Batch, _mapped
from maskstream.preprocess.versions import append, remove
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.train import read_metrics, replay, train
from maskstream.train.core.trackers import _numbers
from maskstream.train.evaluate.evaluation import TrainingLoss
from maskstream.train.evaluate.unseen import check_unseen
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import described, write_split
from ...preprocess.versions.other_keys import with_other_keys
from ..test_every_recipe import CUTS as EVERY_CUTS
from .test_data_version import CUTS
from .test_replay import digest, digests, train_noted
from .test_torchrun import torchrun

SETTINGS: dict[str, Any] = {"device": "cpu", "threads": 1, "progress": False, "set": CUTS}


def write_two(modality: str, folder: Path) -> tuple[Path, Path]:
    """Two splits of a modality with other samples, folder/a/split and folder/b/split."""
    one, other = write_split(modality, folder / "a"), folder / "b" / "split"
    shutil.copytree(one, other)
    with_other_keys(other)
    described(modality, other)  # which writes what lies beside the shards, such as a tokenizer
    return one, other


def fading(one: Path, other: Path, **limits: float) -> DataMixture:
    """A mixture in which one split gives less and less; `b` of limits: the most epochs of the other."""
    return DataMixture(
        sources=(
            MixtureSource(data=str(one), weight=masks.Linear(start=0.9, end=0.2)),
            MixtureSource(data=str(other), weight=0.5, epochs=limits.get("b")),
        )
    )


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_two("image", tmp_path_factory.mktemp("mixture"))


def test_a_run_goes_on_exactly_and_only_as_itself(splits: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = (shutil.copytree(split, tmp_path / split.parent.name / "split") for split in splits)
    mixture = fading(one, other)
    run, found = tmp_path / "run", []
    for _ in range(2):
        train("mae-tiny", mixture, run, steps=6, **SETTINGS, save_every=3, keep=9)
        metrics = read_metrics(run / "metrics.jsonl")
        found.append((load_file(run / "model.safetensors"), [(step.loss, step.sources) for step in metrics]))
        shutil.rmtree(run / "checkpoints" / "step-00000006")
        (run / "model.safetensors").unlink()
    (whole, told), (again, told_again) = found
    assert all((whole[name] == again[name]).all() for name in whole)
    assert told == told_again
    about = json.loads((run / "run.json").read_text())["data"]
    assert DataMixture.from_dict(about["mixture"]) == mixture
    assert [(one["name"], one["samples"]) for one in about["sources"]] == [("a/split", 15), ("b/split", 15)]
    for changed, said in [
        (mixture.at([str(other), str(one)]), "sources.0.dataset: saved"),
        (DataMixture.of([one, other], [1, 0.5]), "parts.0.weight: saved"),
        (fading(one, other, b=2), "parts.1.epochs: saved nothing, here 2"),
        (str(one), "the run reads a mixture of 2 splits, but got one split"),
    ]:
        with pytest.raises(ResumeError, match=said):
            train("mae-tiny", changed, run, steps=6, **SETTINGS)
    with pytest.raises(ResumeError, match="steps: saved 6, here 9"):
        train("mae-tiny", mixture, run, steps=9, **SETTINGS)


@pytest.mark.slow
def test_a_run_stays_with_the_samples_of_each_split(splits: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = (shutil.copytree(split, tmp_path / split.parent.name / "split") for split in splits)
    run, mixture = tmp_path / "run", DataMixture.of([one, other], [2, 1])
    train("mae-tiny", mixture, run, steps=2, **SETTINGS)
    more = shutil.copytree(one, tmp_path / "more")
    with_other_keys(more)
    append(one, more)
    train("mae-tiny", mixture, run, steps=4, **SETTINGS)
    told = json.loads((run / "run.json").read_text())["data"]["sources"]
    assert [one["version"] for one in told] == [1, 1]
    train("mae-tiny", mixture, tmp_path / "new", steps=1, **SETTINGS)
    told = json.loads((tmp_path / "new" / "run.json").read_text())["data"]["sources"]
    assert [(one["version"], one["samples"]) for one in told] == [(2, 30), (1, 15)]


def test_what_cannot_be_mixed_is_refused(splits: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = splits
    mixture, new = DataMixture.of([one, other]), tmp_path / "run"
    moved = shutil.copytree(one, tmp_path / "moved" / "split")
    with pytest.raises(ValueError, match="a/split and moved/split are the same split"):
        train("mae-tiny", DataMixture.of([one, moved]), new, **SETTINGS)
    with pytest.raises(ValueError, match="data_version=1 applies to a single split, but there are several"):
        train("mae-tiny", mixture, new, **SETTINGS, data_version=1)
    with pytest.raises(ValueError, match=r"has the same samples as .*/b/split"):
        train("mae-tiny", mixture, new, **SETTINGS, val=other)
    texts = write_split("text", tmp_path / "texts")
    with pytest.raises(ValueError, match=r"is for image, but .* contains text"):
        train("mae-tiny", DataMixture.of([one, texts]), new, **SETTINGS)
    with pytest.raises(ValueError, match=r"is only for data at URLs, but .*/a/split is local"):
        train("mae-tiny", mixture, new, **SETTINGS, cache=tmp_path / "cache")
    tokens = DataMixture(sources=mixture.sources, unit="tokens")
    with pytest.raises(ValueError, match="works only with packed rows"):
        train("mae-tiny", tokens, new, **SETTINGS)
    ended = DataMixture(sources=tuple(MixtureSource(data=str(at), epochs=1) for at in splits))
    with pytest.raises(ValueError, match="all sources end"):
        train("mae-tiny", ended, new, **SETTINGS)
    assert not new.exists()
    words = ["train", "mae-tiny", "--data", str(one), "--data", str(other), "--weights", "0.7,0.3", "--steps", "1"]
    words += ["--device", "cpu", "--out", str(new), *(word for cut in CUTS for word in ("--set", cut))]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = DataMixture.from_dict(json.loads((new / "run.json").read_text())["data"]["mixture"])
    assert told == DataMixture.of(splits, [0.7, 0.3])
    for split in splits:
        with pytest.raises(ValueError, match=r"is the split that .* was trained on"):
            check_unseen(Manifest.load(split), runs=[new])


@pytest.mark.parametrize("recipe", ["mae-tiny", "native-tiny"])
def test_global_batches_are_those_of_any_ranks_after_any_resume(recipe: str, splits: tuple[Path, Path]) -> None:
    """Two steps on one rank, two on two, two on three, bit for bit those of one rank; rows say their source."""
    one, other = splits
    chosen = chosen_recipe(recipe, EVERY_CUTS[recipe.split("-")[0]])
    opened = OpenMixture(mixture=fading(one, other), manifests=(Manifest.load(one), Manifest.load(other)))
    options: dict[str, Any] = {"steps": 6, "seed": 3, "device": "cpu", "threads": 1}

    def batches(ranks: int, state: dict[str, Any] | None, steps: int) -> tuple[list[Batch], dict[str, Any]]:
        parts = []
        for rank in range(ranks):
            made = chosen.loader(opened, **options, batch_size=6 // ranks, rank=rank, world_size=ranks)
            with closing(made) as loader:
                if state is not None:
                    loader.load_state_dict(state)
                parts.append([*islice(loader.repeat(), steps)])
                after = loader.state_dict()
        return [type(own[0]).concatenated(own) for own in zip(*parts, strict=True)], json.loads(json.dumps(after))

    whole, _ = batches(1, None, 6)
    found, state = batches(1, None, 2)
    for ranks in (2, 3):
        more, state = batches(ranks, state, 2)
        found += more
    assert [digest(batch) for batch in found] == [digest(batch) for batch in whole]
    for batch in whole:
        assert batch.source is not None
        assert [key[0] == "Z" for key in batch.key] == [part == 1 for part in batch.source.tolist()]
    assert {part for batch in whole for part in batch.source.tolist()} == {0, 1}


NAMES = ("one", "two")


@torch.no_grad()
def losses_alone(model: Any, batch: Batch) -> list[float]:
    """The mean of a model's squared errors in each sample, one by one."""
    if not isinstance(batch, PackedBatch):
        rows = [_mapped(batch, lambda values, row=row: values[row : row + 1]) for row in range(len(batch))]
        return [float(model.loss(row).loss()) for row in rows]
    assert batch.mask is not None
    errors = (model.predict(batch) - model.targets(batch, batch.mask.target)).square().mean(1)
    ends, weight = batch.mask.cu_target.tolist(), batch.mask.weight
    parts = [slice(begin, end) for begin, end in pairwise(ends)]
    return [float((errors[part] * weight[part]).sum() / weight[part].sum()) for part in parts]


@pytest.mark.parametrize("recipe", [pytest.param("mae-tiny", marks=pytest.mark.slow), "native-tiny"])
def test_metrics_say_what_each_source_gave_and_lost(recipe: str, splits: tuple[Path, Path], tmp_path: Path) -> None:
    """Also after a resume; the losses are those of each sample alone, by an untrained model."""
    run, still = tmp_path / "run", ("batch_size=3", "accumulate=2", "base_lr=1e-9", "min_lr=0")
    cuts = (*EVERY_CUTS[recipe.split("-")[0]], *still)
    settings = SETTINGS | {"set": cuts, "seed": 3, "precision": "fp32"}
    one, two = (MixtureSource(data=str(at), weight=w, name=n) for at, w, n in zip(splits, (2, 1), NAMES, strict=True))
    mixture = DataMixture(sources=(one, two))
    train(recipe, mixture, run, steps=4, **settings, save_every=2, keep=9)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    train(recipe, mixture, run, steps=4, **settings)
    metrics, seen = read_metrics(run / "metrics.jsonl"), Counter[str]()
    assert len(metrics) == 4
    for step in metrics:
        found = replay(run, step.step)
        model, losses = found.recipe.build(seed=3), defaultdict[str, list[float]](list)
        for batch in found.batches:
            own = losses_alone(model, batch)
            assert batch.source is not None
            for key, part, loss in zip(batch.key, batch.source.tolist(), own, strict=True):
                assert (key[0] == "Z") == (part == 1)
                losses[NAMES[part]].append(loss)
        for name, own_losses in losses.items():
            seen[name] += len(own_losses)
            told = step.sources[name]
            assert told["samples"] == seen[name]
            assert told["epoch"] == seen[name] / 15
            assert told["loss"] == pytest.approx(np.mean(own_losses), rel=1e-4)
        assert {name for name, own in step.sources.items() if "loss" in own} == set(losses)
    told = _numbers(metrics[-1])
    assert (told["source samples/one"], told["source loss/two"]) == (seen["one"], metrics[-1].sources["two"]["loss"])
    curves = run_curves(metrics, TrainingLoss(name="error", value=1.0, baseline="the mean"))
    assert [chart.title for chart in curves.small if chart.note.startswith("the loss of this source")] == [*NAMES]
    facts = _sources(metrics)
    assert facts["source one"].startswith(f"{seen['one']} samples, {seen['one'] / 15:.3g} epochs, loss ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "modality"), [("mgmae-tiny", "video"), ("mosaicbert-tiny", "text"), ("native-tiny", "image")]
)
def test_a_hundred_steps_of_mixtures_again(recipe: str, modality: str, tmp_path: Path) -> None:
    """By weights that change, by ranks that the run had not, in other folders, and after append and remove."""
    one, other = write_two(modality, tmp_path)
    run, cuts = tmp_path / "run", (*EVERY_CUTS[recipe.split("-")[0]], "batch_size=6")
    mixture = fading(one, other)
    seen = train_noted(recipe, mixture, run, cuts, 34)
    assert len(seen) == 34
    assert [digests(run, step + 1) for step in range(34)] == seen
    about = json.loads((run / "run.json").read_text())
    for ranks in (2, 3):
        (run / "run.json").write_text(json.dumps(about | {"ranks": ranks}))
        for step in (1, 17, 34):
            keys = [key for rank in range(ranks) for batch in replay(run, step, rank=rank).batches for key in batch.key]
            assert keys == [key for batch in replay(run, step).batches for key in batch.key]
    more = shutil.copytree(one, tmp_path / "more")
    for path in (more, shutil.copytree(other, tmp_path / "moved" / "split")):
        assert path.exists()
    with_other_keys(more)
    append(one, more)
    remove(other, Manifest.load(other).keys([0]))
    assert [digests(run, step + 1) for step in range(33, -1, -1)] == seen[::-1]
    assert digests(run, 5, data=[one, tmp_path / "moved" / "split"]) == seen[4]
    with pytest.raises(ValueError, match="pass the locations of all 2 splits"):
        replay(run, 5, data=one)


@pytest.mark.slow
def test_worker_processes_say_the_sources_too(splits: tuple[Path, Path]) -> None:
    opened = OpenMixture(mixture=fading(*splits), manifests=(Manifest.load(splits[0]), Manifest.load(splits[1])))
    chosen, options = chosen_recipe("mae-tiny", CUTS), dict[str, Any](steps=6, seed=3, device="cpu", threads=1)
    with (
        closing(chosen.loader(opened, **options)) as alone,
        closing(chosen.loader(opened, **options, workers=2)) as other,
    ):
        for one, same in zip(islice(alone.repeat(), 6), islice(other.repeat(), 6), strict=True):
            assert one.source is not None
            assert digest(one) == digest(same)


@pytest.mark.slow
def test_a_mixed_run_goes_on_with_two_and_three_ranks(splits: tuple[Path, Path], tmp_path: Path) -> None:
    """The command line on 1, 2 and 3 ranks, two steps each, gives every source what one rank gives it."""
    run, whole, path = tmp_path / "run", tmp_path / "whole", tmp_path / "mixture.json"
    path.write_text(json.dumps(fading(*splits).to_dict()))
    train("mae-tiny", fading(*splits), whole, steps=6, **SETTINGS | {"set": (*CUTS, "batch_size=6")}, seed=3)
    words = ["train", "mae-tiny", "--data", path, "--steps", 6, "--seed", 3, "--device", "cpu", "--out", run]
    words += [word for cut in (*CUTS, "batch_size=6") for word in ("--set", cut)]
    for ranks in (1, 2, 3):
        status, output = torchrun(
            ranks, "-m", "maskstream", *words, "--save-every", 2, "--keep", 9, "--batch-size", 6 // ranks
        )
        assert status == 0, output
        for step in range(2 * ranks + 2, 7, 2):
            shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    found, wanted = (read_metrics(folder / "metrics.jsonl") for folder in (run, whole))
    for one, other in zip(found, wanted, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        for name, own in one.sources.items():
            assert own == pytest.approx(other.sources[name], rel=1e-4)
    assert [digests(run, step) for step in range(1, 7)] == [digests(whole, step) for step in range(1, 7)]
