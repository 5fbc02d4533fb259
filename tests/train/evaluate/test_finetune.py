"""Fine-tuning: a classifier from a run's encoder, trained by the loop of all recipes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.shards.config import with_set
from maskstream.shards.format.manifest import Manifest
from maskstream.train import Trainer, load_model, train
from maskstream.train.core.metrics import read_metrics
from maskstream.train.core.recipe import Recipe
from maskstream.train.core.run_folder import run_recipe
from maskstream.train.core.validation import BEST
from maskstream.train.core.weights import compute_weights_sum
from maskstream.train.evaluate.classifier import Classifier, ClassifierConfig, score_views, tune_classifier
from maskstream.train.finetune_run import finetune
from maskstream.train.recipes import chosen_recipe, named_recipe

from ..labelled_pictures import SMALL, write_split

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("finetune")
    return write_split(folder / "train", 91, 0), write_split(folder / "test", 61, 1)


@pytest.fixture(scope="module")
def run(splits: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(chosen_recipe("mae-tiny", SMALL), splits[0], out, steps=2, seed=3, device="cpu", threads=1, progress=False)
    return out


def classifier_recipe(run: Path, split: Path, changes: Sequence[str] = ()) -> Recipe[Any]:
    return with_set(tune_classifier(run_recipe(run), Manifest.load(split)).recipe, list(changes))


def first_batch(run: Path, split: Path, rows: int = 8) -> ImageBatch:
    recipe = classifier_recipe(run, split)
    loader = recipe.loader(split, batch_size=rows, seed=0, device="cpu", threads=1)
    batch = next(iter(loader))
    loader.close()
    assert isinstance(batch, ImageBatch)
    return batch


def classifier(run: Path, split: Path, *changes: str) -> Classifier[ImageBatch]:
    model = classifier_recipe(run, split, changes).build(seed=0)
    assert isinstance(model, Classifier)
    return model


def test_the_command_trains_from_the_runs_encoder_and_measures(
    run: Path, splits: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    words = ["finetune", str(run), "--data", str(splits[0]), "--test", str(splits[1]), "--out", str(out)]
    words += ["--device", "cpu", "--steps", "120", "--set", "model.mixup=0", "--set", "schedule.base_lr=0.1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "finetune.json").read_text())
    assert (found["metric"], found["classes"], found["test"], found["steps"]) == ("accuracy", 3, 60, 120)
    assert found["majority"] == pytest.approx(1 / 3)
    assert found["value"] > 0.5
    confusion = torch.tensor(found["confusion"])
    assert confusion.sum(dim=1).tolist() == [20, 20, 20]
    assert found["value"] == pytest.approx(float(confusion.diagonal().sum()) / 60)
    assert isinstance(load_model(out / "model.safetensors"), Classifier)
    assert json.loads((out / "run.json").read_text())["recipe"]["model"]["kind"] == "ClassifierConfig"
    data = ["--data", str(splits[1])]
    result = CliRunner().invoke(app, ["evaluate", str(out), *data, "--json"])
    assert result.exit_code == 0, result.output
    (score,) = json.loads(result.stdout)["evaluations"][0]["scores"]
    assert (score["value"], score["count"], score["unit"]) == (found["value"], 60, "%")
    assert score["baselines"] == {"the most frequent class": pytest.approx(1 / 3)}
    result = CliRunner().invoke(app, ["report", str(out), *data, "--out", str(out / "report.html")])
    assert result.exit_code == 0, result.output
    page = (out / "report.html").read_text()
    assert page.count("The model predicts ") == 8
    assert "the frequencies of classes" in page
    assert "predictions for each of 3 classes" in page


@pytest.mark.slow
def test_a_process_that_fine_tunes_nothing_reads_and_probes_a_fine_tuned_run(
    run: Path, splits: tuple[Path, Path], tmp_path: Path
) -> None:
    finetune(run, *splits, tmp_path, steps=1, device=CPU, progress=False)
    code = f"from maskstream.train import load_model; print(type(load_model({str(tmp_path / 'model.safetensors')!r})))"
    assert "Classifier" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    words = ["probe", str(tmp_path), "--data", str(splits[0]), "--test", str(splits[1]), "--probes", "knn10"]
    result = CliRunner().invoke(app, [*words, "--seeds", "1", "--device", "cpu"])
    assert result.exit_code == 0, result.output


def test_a_default_rate_that_is_small_for_the_batch_is_told_with_the_setting_that_makes_it_whole(
    run: Path, splits: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = ("batch_size=16", "schedule.warmup=0")
    finetune(run, *splits, tmp_path / "default", set=changes, steps=1, device=CPU, progress=False)
    (told,) = [one for one in caplog.messages if "learning rate" in one]
    (change,) = re.findall(r"schedule\.base_lr=[\d.]+", told)
    caplog.clear()
    finetune(run, *splits, tmp_path / "set", set=(*changes, change), steps=1, device=CPU, progress=False)
    assert not [one for one in caplog.messages if "learning rate" in one]
    default, whole = (read_metrics(tmp_path / name / "metrics.jsonl")[0].lr for name in ("default", "set"))
    assert (default, whole) == (pytest.approx(1e-3 / 16), pytest.approx(1e-3))


def test_the_first_step_has_the_runs_encoder_or_initial_weights_from_scratch(
    run: Path, splits: tuple[Path, Path], tmp_path: Path
) -> None:
    own = load_model(run / "model.safetensors").get_submodule("encoder").state_dict()
    for scratch in (False, True):
        out = tmp_path / f"{scratch}"
        still = ("schedule.base_lr=1e-12", "schedule.min_lr=0.0", "optimiser.weight_decay=0.0")
        finetune(run, *splits, out, set=still, steps=1, scratch=scratch, seed=7, device=CPU, progress=False)
        made = load_model(out / "model.safetensors").get_submodule("encoder").state_dict()
        assert own.keys() == made.keys()
        same = all(torch.allclose(own[name], made[name], atol=1e-7) for name in own)
        assert same is not scratch


def test_scores_come_from_all_tokens_and_from_nothing_else(run: Path, splits: tuple[Path, Path]) -> None:
    model, batch = classifier(run, splits[0]).eval(), first_batch(run, splits[0])
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    assert batch.mask is None
    before = model.scores(batch)
    for at in (0, 15):
        image = batch.image.clone()
        image[:, at, at] = 255 - image[:, at, at]
        assert not torch.equal(model.scores(replace(batch, image=image)), before)


def test_a_class_token_is_no_part_of_the_mean(run: Path, splits: tuple[Path, Path]) -> None:
    model, batch = classifier(run, splits[0], "of.class_token=true"), first_batch(run, splits[0])
    assert model.token_features(batch).shape == (8, 16, 32)
    torch.testing.assert_close(model.features(batch), model.token_features(batch).mean(dim=1))


def test_a_sample_without_a_label_gives_no_gradient(run: Path, splits: tuple[Path, Path]) -> None:
    batch = first_batch(run, splits[0])
    model = classifier(run, splits[0], "model.mixup=0.0")
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, -1])
    other = torch.cat((batch.image[:7], 255 - batch.image[7:]))
    first, same, different = (
        model(replace(batch, image=image, label=label)).loss().item()
        for image, label in ((batch.image, labels), (other, labels), (other, labels.clamp_min(0)))
    )
    assert first == same
    assert same != different


def test_lists_of_classes_are_learned_each_by_itself(run: Path, tmp_path: Path) -> None:
    train_split = write_split(tmp_path / "train", 40, 2, several=True)
    test_split = write_split(tmp_path / "test", 31, 3, several=True)
    found = finetune(run, train_split, test_split, tmp_path / "out", steps=2, device=CPU, progress=False)
    assert found is not None
    assert (found.metric, found.test) == ("mAP", 31)


def test_views_of_a_test_are_the_whole_sample_and_crops_as_in_training(run: Path, splits: tuple[Path, Path]) -> None:
    recipe = classifier_recipe(run, splits[0])
    model = recipe.build(seed=0).eval()
    assert isinstance(model, Classifier)
    torch.nn.init.normal_(model.head.weight, std=5.0, generator=torch.Generator().manual_seed(0))
    single, true = score_views(model, recipe.data, *map(Manifest.load, splits), CPU, 1)
    by_view = [single.softmax(dim=1)]
    for seed in (1, 2):
        options = {"batch_size": 61, "shuffle": False, "seed": seed, "device": "cpu", "threads": 1}
        loader = recipe.data.whole().loader(splits[1], **options)  # type: ignore[arg-type]
        batch = next(iter(loader))
        loader.close()
        by_view.append(model.scores(batch).detach()[:60].softmax(dim=1))
        assert torch.equal(batch.label[:60], true)
    found, _ = score_views(model, recipe.data, *map(Manifest.load, splits), CPU, 3)
    torch.testing.assert_close(found, torch.stack(by_view).mean(dim=0))
    assert not torch.allclose(by_view[1], by_view[2])


def test_views_of_training_are_rows_of_one_sample_that_count_alike(run: Path, splits: tuple[Path, Path]) -> None:
    recipe = classifier_recipe(run, splits[0], ["data.views=2", "model.mixup=0"])
    loader = recipe.loader(splits[0], batch_size=4, seed=0, device="cpu", threads=1)
    batch = next(iter(loader))
    loader.close()
    assert batch.key[::2] == batch.key[1::2]
    assert len(set(batch.key)) == 4
    assert torch.equal(batch.label[::2], batch.label[1::2])
    assert not any(torch.equal(one, other) for one, other in zip(batch.image[::2], batch.image[1::2], strict=True))
    model = recipe.build(seed=0)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    halves = [
        model(replace(batch, image=batch.image[i::2], label=batch.label[i::2], key=batch.key[i::2])).loss()
        for i in (0, 1)
    ]
    torch.testing.assert_close(model(batch).loss(), sum(halves) / 2)


def test_a_resumed_fine_tuning_mixes_and_drops_as_one_that_never_stopped(
    run: Path, splits: tuple[Path, Path], tmp_path: Path
) -> None:
    sets = ["model.cutmix=1.0", "model.dropout.path=0.5", "model.of.depth=2", "batch_size=8", "schedule.base_lr=0.1"]
    recipe = classifier_recipe(run, splits[0], sets)
    for parts in ((4,), (2, 4)):
        for until in parts:
            loader = recipe.loader(splits[0], batch_size=8, seed=1, steps=4, device="cpu", threads=1)
            Trainer(recipe, loader, tmp_path / f"{len(parts)}", steps=4, seed=1, progress=False).run(until)
            loader.close()
    one, two = (load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("1", "2"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_ends_early_on_a_part_that_was_held_out_and_the_best_weights_are_tested(
    run: Path, splits: tuple[Path, Path], tmp_path: Path
) -> None:
    val = write_split(tmp_path / "val", 31, 5)
    options = {"val": val, "every": 2, "patience": 2, "steps": 40, "device": CPU, "progress": False}
    still = ("schedule.base_lr=1e-12", "schedule.min_lr=0.0")
    found = finetune(run, *splits, tmp_path / "out", set=still, balanced=True, **options)  # type: ignore[arg-type]
    assert found is not None
    assert (found.trained.step, found.trained.ended_early, found.step) == (6, True, 2)
    assert found.step == compute_weights_sum(tmp_path / "out" / BEST)[1]
    recipe = json.loads((tmp_path / "out" / "run.json").read_text())["recipe"]
    assert recipe["model"]["class_weights"] == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="has the same samples as"):
        finetune(run, *splits, tmp_path / "out", **{**options, "val": splits[0]})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="patience=2 counts validations"):
        finetune(run, *splits, tmp_path / "out", **{**options, "val": None})  # type: ignore[arg-type]


def test_what_cannot_be_fine_tuned_is_said(run: Path, splits: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_split(tmp_path / "other", 10, 4, names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"are not among the 3 .*; pass splits whose classes have the same names"):
        finetune(run, splits[0], other, tmp_path / "out", device=CPU)
    with pytest.raises(ValueError, match="classes must be an integer of at least 2, got 1"):
        ClassifierConfig(of=named_recipe("mae-tiny").model, classes=1)  # type: ignore[arg-type]
    tuned = tmp_path / "tuned"
    assert finetune(run, *splits, tuned, steps=1, device=CPU, progress=False) is not None
    with pytest.raises(ValueError, match="is a ClassifierConfig, whose encoder cannot be fine-tuned"):
        classifier_recipe(tuned, splits[0])
