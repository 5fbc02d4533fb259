"""The probe of runs: figures of frozen features through the recipe's own loader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.shards.format.manifest import Manifest
from maskstream.train import load_model, train
from maskstream.train.evaluate.features import Inputs, drop_augmentation, extract_features, yield_labelled_batches
from maskstream.train.evaluate.probe import INPUTS, PROBE, TRAINED, UNTRAINED, ProbeResult, probe
from maskstream.train.recipes import chosen_recipe

from ..labelled_pictures import SMALL, write_split

CPU = torch.device("cpu")


OWN = """
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks import Mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Bright(Mask):
    needs = frozenset({"frames"})

    def hide(self, grid, draw):
        tokens = draw.cues.frames.reshape(grid.shape[0], grid.patch[0], grid.shape[1], grid.patch[1], 3).sum((1, 3, 4))
        return np.argsort(np.argsort(tokens.ravel(), kind="stable")) < grid.size * 3 // 4
"""


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("probe")
    return write_split(folder / "train", 91, 0), write_split(folder / "test", 61, 1)


@pytest.fixture(scope="module")
def runs(splits: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = [tmp_path_factory.mktemp("runs") / f"{seed}" for seed in (0, 5)]
    recipe = chosen_recipe("mae-tiny", SMALL)
    for seed, run in zip((0, 5), made, strict=True):
        train(recipe, splits[0], run, steps=2, seed=seed, device="cpu", threads=1, progress=False)
    return made


@pytest.mark.slow
def test_the_command_compares_with_untrained_encoders_and_inputs(
    runs: list[Path], splits: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["probe", *map(str, runs), "--data", str(splits[0]), "--test", str(splits[1]), "--device", "cpu"]
    words += ["--seeds", "2", "--probes", "knn10,linear"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "deep" / "probe.json")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "deep" / "probe.json").read_text())
    assert (found["train"], found["test"], found["classes"], found["metric"]) == (90, 60, 3, "accuracy")
    assert found["seeds"] == {TRAINED: [0, 5], UNTRAINED: [0, 5]}
    assert found["majority"] == pytest.approx(1 / 3)
    by = {(one["encoder"], one["probe"]): one for one in found["reached"]}
    assert by.keys() == {(k, name) for k in (TRAINED, UNTRAINED, INPUTS) for name in ("knn10", "linear")}
    assert len(by[TRAINED, "linear"]["values"]) == 2
    assert len(by[INPUTS, "linear"]["values"]) == 1
    assert by[TRAINED, "linear"]["mean"] > 0.6
    for line in ("mean and (largest - smallest)", "pre-trained", "untrained", "inputs", "margin", "majority"):
        assert line in result.output
    result_again = ProbeResult.from_dict(found)
    assert json.loads(json.dumps(result_again.to_dict())) == found
    assert result_again.facts()["linear probe"].startswith("accuracy on 60 samples: pre-trained 0.")
    with pytest.raises(ValueError, match="not a probe result"):
        ProbeResult.from_dict({"reached": []})
    words[-1] = "knn10"
    again = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "again.json"), "--json"])
    assert json.loads(again.output)["reached"] == [one for one in found["reached"] if one["probe"] == "knn10"]


@pytest.mark.slow
def test_runs_with_different_masks_are_compared_on_the_same_whole_samples(
    runs: list[Path], splits: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "probedmask.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    own, deep = tmp_path / "own", tmp_path / "deep"
    for out, words in ((own, ("mask.kind=probedmask:Bright",)), (deep, ("model.depth=2",))):
        train(chosen_recipe("mae-tiny", (*SMALL, *words)), splits[0], out, steps=2, device="cpu", progress=False)
    command = ["probe", *map(str, (runs[0], own, deep)), "--data", str(splits[0]), "--test", str(splits[1])]
    command += ["--device", "cpu", "--seeds", "1", "--probes", "knn10"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    alone = probe([own], *splits, probes=("knn10",), seeds=1, device=CPU)
    assert json.loads((own / PROBE).read_text()) == json.loads(json.dumps(alone.to_dict()))
    lines = {line[:20].strip(): line.split() for line in said.output.splitlines()}
    assert lines["data.mask"][1:] == ["Random(ratio=0.75)", "probedmask:Bright()", "Random(ratio=0.75)"]
    assert lines["model.depth"][1:] == ["1", "1", "2"]
    figure = alone.of(TRAINED, "knn10")
    assert figure is not None
    assert lines["pre-trained"][3:5] == [f"{figure.mean:.3f}", "(0.000)"]
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert list(found["differs"]) == ["data.mask", "model.depth"]
    assert [one["runs"] for one in found["probes"]] == [[str(run)] for run in (runs[0], own, deep)]
    first, second, third = (ProbeResult.from_dict(one).of(UNTRAINED, "knn10") for one in found["probes"])
    assert first == second != third


def test_features_are_those_of_centre_crops_with_nothing_hidden(runs: list[Path], splits: tuple[Path, Path]) -> None:
    recipe = chosen_recipe("mae-tiny", SMALL)
    assert isinstance(recipe.data, ImageData)
    model = load_model(runs[0] / "model.safetensors")
    data = drop_augmentation(replace(recipe.data, views=3, colour=ColourJitter()), Manifest.load(splits[0]))
    batches = list(yield_labelled_batches(data, Manifest.load(splits[1]), size=16, samples=100, several=False))
    found = extract_features({"own": model}, iter(batches), tokens=True, device=CPU)  # type: ignore[dict-item]
    assert found.labels.tolist() == [n % 3 for n in range(60)]
    whole = replace(recipe.data, views=1, augment=CenterCrop(), mask=None)
    loader = whole.loader(splits[1], batch_size=61, shuffle=False, device="cpu", threads=1)
    (batch,) = loader
    loader.close()
    image = batch.image[:60]
    index = torch.arange(16).expand(60, -1)
    with torch.inference_mode():
        expected = model.encode(image, index)  # type: ignore[operator]
    torch.testing.assert_close(found.vectors["own"], expected.mean(dim=1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.tokens["own"].float(), expected, rtol=1e-2, atol=1e-2)


def test_components_of_inputs_keep_the_distances_of_what_was_fitted(
    runs: list[Path], splits: tuple[Path, Path]
) -> None:
    recipe = chosen_recipe("mae-tiny", SMALL)
    model = load_model(runs[0] / "model.safetensors")
    batches = list(
        yield_labelled_batches(
            drop_augmentation(recipe.data, Manifest.load(splits[0])),
            Manifest.load(splits[0]),
            size=90,
            samples=90,
            several=False,
        )
    )
    inputs = Inputs(model, iter(batches), CPU)  # type: ignore[arg-type]
    batch, rows, _ = batches[0]
    raw = model.token_inputs(batch).flatten(1)[rows]  # type: ignore[operator]
    made = inputs.features(batch)[rows]
    torch.testing.assert_close(*(torch.cdist(one.double(), one.double()) for one in (made, raw)), rtol=1e-2, atol=5e-2)


def test_fewer_samples_are_drawn_from_the_whole_split(splits: tuple[Path, Path]) -> None:
    data = drop_augmentation(chosen_recipe("mae-tiny", SMALL).data, Manifest.load(splits[0]))
    batches = list(yield_labelled_batches(data, Manifest.load(splits[0]), size=8, samples=20, several=False))
    keys = [batch.key[int(row)] for batch, rows, _ in batches for row in rows]
    assert len(keys) == len(set(keys)) == 20
    assert max(keys) > "s040"


def test_lists_of_classes_give_map(runs: list[Path], tmp_path: Path) -> None:
    train_split = write_split(tmp_path / "train", 40, 2, several=True)
    test_split = write_split(tmp_path / "test", 31, 3, several=True)
    found = probe(
        runs[:1], train_split, test_split, probes=("knn10", "whitened10", "linear", "attentive"), seeds=1, device=CPU
    )
    assert (found.metric, found.train, found.test) == ("mAP", 40, 31)
    for name in ("whitened10", "linear", "attentive"):
        own = found.of(TRAINED, name)
        assert own is not None
        assert own.mean > found.majority
    assert found.of(INPUTS, "attentive") is None


def test_what_cannot_be_probed_is_said(runs: list[Path], splits: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_split(tmp_path / "other", 10, 4, names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"are not among the 3 .*; pass splits whose classes have the same names"):
        probe(runs, splits[0], other, device=CPU)
    with pytest.raises(ValueError, match="unknown probe 'svm'; choose from knn10"):
        probe(runs, *splits, probes=("svm",), device=CPU)
    changed = chosen_recipe("mae-tiny", (*SMALL, "mask.ratio=0.5"))
    train(changed, splits[0], tmp_path / "changed", steps=1, device="cpu", threads=1, progress=False)
    with pytest.raises(ValueError, match="different recipes"):
        probe([runs[0], tmp_path / "changed"], *splits, device=CPU)
    with pytest.raises(ValueError, match=r"run\.json does not exist"):
        probe([tmp_path], *splits, device=CPU)
