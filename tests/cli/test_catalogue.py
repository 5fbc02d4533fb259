"""`maskstream datasets`, `recipes` and `masks` name all that the other commands take."""

import json

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines.masks import MASKS
from maskstream.preprocess import DATASETS
from maskstream.train.recipes import RECIPES

TABLES = {"datasets": DATASETS, "recipes": RECIPES, "masks": MASKS}


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
    ("datasets", "ucf101-2", ("UCF101", "fold=2")),
    ("recipes", "mae-base", ("Differs",)),
    ("masks", "videomae2", ("VideoMAE V2", "masks.")),
])  # fmt: skip
def test_one_is_described_whole(command, name, words):
    code, output, _ = said(command, name)
    assert code == 0
    assert all(word in output for word in words)


def test_an_unknown_name_is_refused_with_the_nearest():
    code, _, error = said("datasets", "k4000")
    assert code == 1
    assert str(error) == "'k4000' is no dataset, did you mean 'k400'?; `maskstream datasets` lists all"
