"""Runs on mixtures: what they say of themselves, that they go on exactly, and what is refused."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from maskstream.pipelines import masks
from maskstream.pipelines.modalities.mixture import DataMixture, MixtureSource, OpenMixture
from maskstream.pipelines.stream.batch import Batch
from maskstream.preprocess.versions import append
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.train import read_metrics, train
from maskstream.train.evaluate.unseen import check_unseen
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import described, write_split
from ...preprocess.versions.other_keys import with_other_keys
from ..test_every_recipe import CUTS as EVERY_CUTS
from .test_data_version import CUTS
from .test_replay import digest

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
    train("mae-tiny", mixture, tmp_path / "whole", steps=6, **SETTINGS)
    run = tmp_path / "run"
    train("mae-tiny", mixture, run, steps=6, **SETTINGS, save_every=3, keep=9)
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    (run / "model.safetensors").unlink()
    train("mae-tiny", mixture, run, steps=6, **SETTINGS)
    whole, again = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", run))
    assert all((whole[name] == again[name]).all() for name in whole)
    assert [m.loss for m in read_metrics(run / "metrics.jsonl")] == [
        m.loss for m in read_metrics(tmp_path / "whole" / "metrics.jsonl")
    ]
    about = json.loads((run / "run.json").read_text())["data"]
    assert DataMixture.from_dict(about["mixture"]) == mixture
    assert [(one["name"], one["samples"]) for one in about["sources"]] == [("a/split", 15), ("b/split", 15)]
    for changed, said in [
        (mixture.at([str(other), str(one)]), "sources.0.dataset: saved"),
        (DataMixture.of([one, other], [1, 0.5]), "parts.0.weight: saved"),
        (fading(one, other, b=2), "parts.1.epochs: saved nothing, here 2"),
        (str(one), "the run reads a mixture of 2 splits, and here is one split"),
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
    with pytest.raises(ValueError, match="data_version=1 is of one split, and here are several"):
        train("mae-tiny", mixture, new, **SETTINGS, data_version=1)
    with pytest.raises(ValueError, match=r"has the samples of .*/b/split"):
        train("mae-tiny", mixture, new, **SETTINGS, val=other)
    texts = write_split("text", tmp_path / "texts")
    with pytest.raises(ValueError, match=r"is for image, but .* holds text"):
        train("mae-tiny", DataMixture.of([one, texts]), new, **SETTINGS)
    with pytest.raises(ValueError, match=r"keeps what is read of a URL, and .*/a/split is local"):
        train("mae-tiny", mixture, new, **SETTINGS, cache=tmp_path / "cache")
    tokens = DataMixture(sources=mixture.sources, unit="tokens")
    with pytest.raises(ValueError, match="only packed rows count tokens"):
        train("mae-tiny", tokens, new, **SETTINGS)
    ended = DataMixture(sources=tuple(MixtureSource(data=str(at), epochs=1) for at in splits))
    with pytest.raises(ValueError, match="all sources end"):
        train("mae-tiny", ended, new, **SETTINGS)
    assert not new.exists()
    train("mae-tiny", mixture, new, steps=1, **SETTINGS)
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
