"""A test split may number its classes otherwise than the training split: they are matched by name, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskstream.pipelines.modalities.mixture import DataMixture
from maskstream.shards.format.manifest import Manifest
from maskstream.train import train
from maskstream.train.core.data import read_label_names
from maskstream.train.core.run_folder import run_recipe
from maskstream.train.evaluate.evaluation import trained_on
from maskstream.train.evaluate.features import match_labels
from maskstream.train.evaluate.probe import probe
from maskstream.train.evaluate_run import evaluate_run
from maskstream.train.finetune_run import finetune
from maskstream.train.recipes import chosen_recipe

from ..labelled_pictures import NAMES, SMALL, write_split

CPU = torch.device("cpu")
OTHER = ("dotted", "flat", "lined")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A training split, a test, and the same test with its names in another order."""
    folder = tmp_path_factory.mktemp("splits")
    test = [write_split(folder / f"{n}", 31, 1, names=names) for n, names in enumerate((NAMES, OTHER))]
    return write_split(folder / "train", 61, 0), test[0], test[1]


@pytest.fixture(scope="module")
def run(splits: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "run"
    train(chosen_recipe("mae-tiny", SMALL), splits[0], made, steps=2, device="cpu", threads=1, progress=False)
    return made


def test_a_probe_is_the_same_whatever_order_the_test_has_its_names_in(
    run: Path, splits: tuple[Path, Path, Path]
) -> None:
    known, test, other = splits
    one, two = (probe([run], known, each, probes=("knn10",), seeds=1, device=CPU) for each in (test, other))
    assert one == two


def test_a_fine_tuned_run_is_measured_by_names(run: Path, splits: tuple[Path, Path, Path], tmp_path: Path) -> None:
    known, test, other = splits
    one, two = (
        finetune(run, known, each, tmp_path / each.parent.name, steps=6, device=CPU, progress=False)
        for each in (test, other)
    )
    assert one is not None
    assert two is not None
    assert one.scores == two.scores
    assert one.confusion is not None
    assert two.confusion is not None
    assert torch.equal(one.confusion, two.confusion)
    tuned = tmp_path / test.parent.name
    assert read_label_names(tuned) == NAMES
    assert read_label_names(run) is None  # mae-tiny learns no labels
    of_test, of_other = (evaluate_run(tuned, each) for each in (test, other))
    assert of_test.scores == of_other.scores


def test_classes_that_the_training_split_does_not_have_are_refused(
    run: Path, splits: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    more = write_split(tmp_path / "more", 9, 2, names=("flat", "lined", "striped"))
    refused = "has 2 samples with the classes 'striped', .*; pass splits whose classes have the same names"
    with pytest.raises(ValueError, match=refused):
        probe([run], splits[0], more, device=CPU)
    with pytest.raises(ValueError, match=refused):
        finetune(run, splits[0], more, tmp_path / "tuned", device=CPU)
    lists = write_split(tmp_path / "lists", 9, 2, several=True, names=(*NAMES, "striped"))
    with pytest.raises(ValueError, match="has the classes 'striped', which are not among the 3"):
        match_labels(Manifest.load(lists), NAMES, "TRAIN")


def test_baselines_know_the_training_split_by_names_or_not_at_all(tmp_path: Path) -> None:
    write_split(tmp_path / "one", 9, 0).rename(tmp_path / "train")
    test = write_split(tmp_path / "two", 9, 1, names=OTHER).rename(tmp_path / "val")
    known = trained_on(Manifest.load(test))
    assert isinstance(known, Manifest)
    assert known.label_names == OTHER
    assert known.label.tolist()[:3] == [1, 2, 0]
    strange = write_split(tmp_path / "three", 9, 1, names=("a", "b", "c")).rename(tmp_path / "test")
    assert str(trained_on(Manifest.load(strange))) == str(strange)


def test_a_classifier_of_a_mixture_learns_one_table(splits: tuple[Path, Path, Path], tmp_path: Path) -> None:
    known, _, other = splits
    recipe = replace(run_recipe(_tuned(splits, tmp_path)), batch_size=8)
    for names, classes in ((OTHER, 3), (("flat", "lined", "striped"), 4)):
        second = other if names == OTHER else write_split(tmp_path / "more", 31, 2, names=names)
        out = tmp_path / f"mixed-{classes}"
        mixture = DataMixture.of([str(known), str(second)])
        if classes == 4:
            with pytest.raises(ValueError, match="has labels of 4 categories, but the model has 3"):
                train(recipe, mixture.at([known, second]), out, steps=1, device="cpu", progress=False)
            continue
        train(recipe, mixture, out, steps=2, device="cpu", threads=1, progress=False)
        assert read_label_names(out) == NAMES
        assert json.loads((out / "run.json").read_text())["data"]["label_names"] == [*NAMES]


def _tuned(splits: tuple[Path, Path, Path], folder: Path) -> Path:
    base = folder / "base"
    train(chosen_recipe("mae-tiny", SMALL), splits[0], base, steps=1, device="cpu", threads=1, progress=False)
    finetune(base, splits[0], splits[1], folder / "tuned", steps=1, device=CPU, progress=False)
    return folder / "tuned"
