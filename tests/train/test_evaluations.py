"""Evaluations are numbers: every recipe has one, its JSON holds to the schema of the docs, and a run keeps it."""

import json
from functools import partial
from numbers import Real
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.cli.measured import held_out
from maskstream.modalities import modality_of
from maskstream.pages.report.drawn import make_sections
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.train import RECIPES, named_recipe, save_model, train
from maskstream.train.evaluate_run import EVALUATIONS, KEPT, evaluate_model, evaluate_run, read_evaluations
from maskstream.train.recipes import chosen_recipe

from ..pipelines.every_modality import write_split
from .test_every_recipe import CUTS

SCHEMA = Draft202012Validator(json.loads((Path(__file__).parents[2] / "docs/evaluation.schema.json").read_text()))
QUICK = ("cropmae-tiny", "pointmae-tiny", "mpm-lift-tiny", "bert-tiny", "vqa-tiny")


def test_every_recipe_has_an_evaluation_in_its_papers_folder_or_in_one_that_papers_share():
    for name in RECIPES:
        kind = type(named_recipe(name).model)
        (evaluate, *_) = [EVALUATIONS[one] for one in kind.__mro__ if one in EVALUATIONS]
        assert ".train.papers." in evaluate.__module__ or ".train.evaluate." in evaluate.__module__


def only_numbers(found):
    """Whether all that an evaluation says of a model is numbers."""
    values = [one.value for one in found.scores] + [v for one in found.scores for v in one.baselines.values()]
    counts = [one.count for one in found.scores]
    return all(isinstance(value, Real) for value in (*values, *counts, *found.notes.values(), found.loss.value))


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES if "-tiny" in name],
)
def test_no_evaluator_returns_words_for_a_number(name, split_of):
    recipe = chosen_recipe(name, CUTS[name.partition("-")[0]])
    split = split_of(recipe.data.modality)
    torch.manual_seed(0)
    try:
        found = evaluate_model(recipe, recipe.build().eval(), Manifest.load(split), 2)
    except ValueError as error:
        assert "label" in str(error) or "box" in str(error), error
        pytest.skip(f"the small split has not what it needs: {error}")
    assert only_numbers(found)
    assert found.scores[0].baselines
    assert len({score.name + score.of for score in found.scores}) == len(found.scores)
    data = {"location": "l", "dataset": "d", "split": "s", "version": 1, "fingerprint": "f"}
    about = {"recipe": name, "step": 0, "weights": "0" * 32, "release": "1", "commit": "", "data": data}
    saved = json.loads(json.dumps({"format": 1, "evaluations": [about | found.to_dict()]}))
    SCHEMA.validate(saved)
    sections = make_sections(
        found.examples,
        modality_of(Manifest.load(split), data=recipe.data).figures(recipe.data, Manifest.load(split)),
        (),
    )
    assert all(section.cards and section.title for section in sections)


@pytest.fixture(scope="module")
def run(split_of, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    train("cropmae-tiny", split_of("image"), out, set=CUTS["cropmae"], steps=1, device="cpu", threads=1, progress=False)
    return out


evaluated = partial(evaluate_run, same_split=True)


def said(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    return done.stdout


def test_the_command_prints_the_json_that_the_run_keeps(run, split_of):
    split = split_of("image")
    shown = json.loads(said("evaluate", run, "--data", split, "--same-split", "--json"))
    kept = json.loads((run / KEPT).read_text())
    SCHEMA.validate(kept)
    assert kept["evaluations"] == shown["evaluations"]
    (one,) = kept["evaluations"]
    assert (one["recipe"], one["step"], one["data"]["version"]) == ("cropmae-tiny", 1, 1)
    lines = said("evaluate", run, run, "--data", split, "--same-split").splitlines()
    score = one["scores"][0]
    assert lines[2].split()[-2:] == [f"{score['value']:.4g}"] * 2
    assert lines[3].startswith("  every patch's mean ")


def test_a_probe_says_what_the_run_reached(run, split_of):
    one = evaluated(run, split_of("image"))
    (line,) = held_out([run])
    assert line.startswith(f"{run} on {split_of('image')}: squared error of a normalised patch of ")
    assert f"{one.scores[0].value:.4g}, " in line


def test_a_report_keeps_the_same_numbers(run, split_of, tmp_path):
    split = split_of("image")
    first = evaluated(run, split)
    (run / KEPT).unlink()
    said("report", run, "--data", split, "--same-split", "--out", tmp_path / "page.html")
    assert read_evaluations(run) == [first]


def test_what_is_kept_is_used_until_weights_or_samples_change(run, split_of, tmp_path, monkeypatch, caplog):
    split, first = split_of("image"), evaluated(run, split_of("image"))
    other = write_split("image", tmp_path / "other")
    monkeypatch.setattr("maskstream.train.evaluate_run.evaluate_model", None)
    assert evaluated(run, split) == first
    with pytest.raises(TypeError):
        evaluated(run, split, again=True)
    monkeypatch.undo()
    assert [one.data.location for one in (evaluated(run, other), *read_evaluations(run))][1:] == [
        str(split),
        str(other),
    ]
    model = named_recipe("cropmae-tiny")
    small = chosen_recipe("cropmae-tiny", CUTS["cropmae"])
    assert model.name == small.name
    for checkpoint in (run / "checkpoints").iterdir():
        (checkpoint / "state.json").unlink()
    (run / "checkpoints").rename(tmp_path / "gone")
    save_model(small.build(seed=5), run / "model.safetensors")
    changed = evaluated(run, split)
    assert (changed.step, changed.weights != first.weights) == (0, True)
    assert read_evaluations(run) == [changed]
    (run / KEPT).write_text('{"format": 9}')
    assert read_evaluations(run) == []
    assert "its format is 9, but this release reads 1; it will be rewritten" in caplog.text
    with pytest.raises(ShardError):
        evaluated(run, tmp_path)
