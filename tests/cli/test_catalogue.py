"""`maskstream datasets`, `recipes` and `masks` name all that the other commands take."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from maskstream.cli import app, catalogue
from maskstream.cli.catalogue import SAMPLES
from maskstream.modalities import MODALITIES
from maskstream.pipelines.masks import MASKS
from maskstream.preprocess.datasets import DATASETS, FORMER, sample_sets
from maskstream.train.recipes import RECIPES

ROOT = Path(__file__).parents[2]
SAMPLE_SETS = {name for some in sample_sets().values() for name in some}
TABLES = {"datasets": {*DATASETS, *SAMPLE_SETS}, "recipes": RECIPES, "masks": MASKS}


def said(*words):
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output, done.exception


@pytest.mark.parametrize("command", TABLES)
def test_every_name_is_listed_with_a_sentence(command):
    code, output, _ = said(command, "--json")
    assert code == 0
    listed = json.loads(output)[command]
    assert {one["name"] for one in listed} == set(TABLES[command])
    for one in listed:
        assert one["about"].endswith((".", ")")), one
        assert one["group"], one
    code, output, _ = said(command)
    assert code == 0
    assert all(name in output for name in TABLES[command])


@pytest.mark.parametrize(("command", "name", "words"), [
    ("datasets", "k400", ("train.csv", "DatasetError", "maskstream shards k400")),
    ("datasets", "ucf101", ("UCF101", "--set fold=2")),
    ("recipes", "mae-base", ("Differences", "train/papers/mae", '"decoder_depth": 8')),
    ("masks", "videomae2", ("VideoMAE V2", "In Python: masks.Dual(")),
])  # fmt: skip
def test_one_is_described_whole(command, name, words):
    code, output, _ = said(command, name)
    assert code == 0
    assert all(word in output for word in words)


def test_datasets_are_grouped_with_samples_apart_and_one_line_for_one_description():
    code, output, _ = said("datasets")
    assert code == 0
    groups: dict[str, list[str]] = {}
    for line in output.splitlines():
        if not line.startswith("  "):
            groups[line] = []
        else:
            groups[list(groups)[-1]].append(line)
    assert next(iter(groups)) == "video"
    apart = [group for group in groups if group.startswith(SAMPLES)]
    assert apart == list(groups)[-len(apart) :]
    assert apart[0] == "samples of video, downloaded or generated"
    assert {group for group in groups if group not in apart} == set(MODALITIES)
    for group, lines in groups.items():
        names = {name for line in lines for name in line[2:].split("  ")[0].split(", ")}
        assert names <= (SAMPLE_SETS if group in apart else {*DATASETS})
        assert len({line[2:].split("  ", 1)[1].strip() for line in lines}) == len(lines)
    assert any(line.startswith("  k400, k600, k700 ") for line in groups["video"])
    assert sum("esc50" in line for line in groups["audio"]) == 1


def test_recipes_are_listed_by_paper_with_their_file_size_data_and_what_they_reach():
    _, output, _ = said("recipes", "--json")
    listed = {one["name"]: one for one in json.loads(output)["recipes"]}
    mage = listed["mage-tiny"]
    assert mage["group"] == "mage (image, train/papers/mage/recipe.py)"
    assert (mage["paper"], mage["file"], mage["data"]) == ("mage", "train/papers/mage/recipe.py", "image")
    assert 1e6 < mage["parameters"] < 2e6
    assert mage["reaches"]["held_out"] < mage["reaches"]["of_baseline"]
    assert {name for name, one in listed.items() if "reaches" in one} == {name for name in RECIPES if "-tiny" in name}
    assert all((ROOT / one["file"]).is_file() for one in listed.values())


def test_a_line_ends_at_the_edge_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "console", Console(force_terminal=True, width=60))
    catalogue.datasets()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 60
    assert any(line.endswith("…") for line in lines)


def test_a_search_finds_what_all_words_stand_in():
    code, output, _ = said("datasets", "--search", "Robot arm", "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(output)["datasets"]] == ["metaworld"]
    code, output, _ = said("recipes", "--search", "motion-guided")
    assert "mgmae-tiny" in output
    assert "bert" not in output
    code, _, error = said("masks", "--search", "nonesuch")
    assert (code, str(error).split(";")[0]) == (1, "no mask mentions 'nonesuch'")


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_says_what_is_given_now(name):
    now, setting = FORMER[name]
    assert now in TABLES["datasets"]
    assert name not in TABLES["datasets"]
    code, _, error = said("datasets", name)
    assert code == 1
    assert f"{name} is now {now} with --set {setting}" in str(error)


def test_an_unknown_name_is_refused_with_the_nearest():
    code, _, error = said("datasets", "k4000")
    assert code == 1
    assert str(error) == "'k4000' is not a dataset, did you mean 'k400'?; `maskstream datasets` lists all"
