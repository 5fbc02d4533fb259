"""The demo of every modality: its commands exist, take the options given, and name what there is."""

import subprocess

import pytest
import typer.main

from maskstream.cli import app, main
from maskstream.modalities import MODALITIES
from maskstream.preprocess.datasets import sample_sets
from maskstream.train.recipes import RECIPES

DEMOS = {name: one.demo for name, one in MODALITIES.items() if one.demo is not None}
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", list(DEMOS))
def test_the_commands_of_a_demo_are_legal(name):
    commands = DEMOS[name].commands(name)
    begin = ["shards", "train", *["probe"] * DEMOS[name].probed, "report"]
    assert [words[0] for words in commands[: len(begin)]] == begin
    for command, first, *options in commands:
        known = COMMANDS[command].commands[first] if command == "paper" else COMMANDS[command]
        legal = {name for param in known.params for name in param.opts}
        assert {word for word in options if word.startswith("--")} <= legal
        assert command != "shards" or first in sample_sets()[name]
        assert command != "train" or first in RECIPES


@pytest.mark.parametrize("name", list(DEMOS))
def test_the_help_names_every_demo(name):
    (modality,) = COMMANDS["demo"].params
    assert name in modality.help.replace(",", " ").replace(".", " ").split()


def test_a_demo_runs_its_commands_and_ends_with_the_first_that_fails(monkeypatch, capsys):
    ran = []

    def run(words, check):
        ran.append(words[3])
        return subprocess.CompletedProcess(words, 3 if words[3] == "report" else 0)

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("sys.argv", ["maskstream", "demo", "points"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert ran == ["shards", "train", "report"]
    assert "maskstream train pointmae-tiny --data data/shards/sample-points/train" in capsys.readouterr().out
