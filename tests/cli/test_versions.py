"""The commands that make versions of a split say what they made, and what they did not find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskstream.shards.format.manifest import Manifest

from ..preprocess.versions.small_splits import written
from .test_cli import run


def test_versions_are_made_by_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, third = (written(tmp_path / name, first) for name, first in (("a", 0), ("b", 100), ("c", 200)))
    keys, out = tmp_path / "keys.txt", tmp_path / "all"
    keys.write_text("k1\nk100\n\n")
    assert run(monkeypatch, "append", one, other) == 0
    assert "version 2 has 6 samples in 2 shards more" in capsys.readouterr().out
    assert run(monkeypatch, "remove", one, "--keys", keys, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"version": 3, "removed": 2, "removed_in_all": 2}
    assert run(monkeypatch, "merge", out, one, third) == 0
    assert "version 1 has 18 samples in 6 shards of 2 splits" in capsys.readouterr().out
    assert run(monkeypatch, "erase", out, "k2") == 1
    assert "run `maskstream erase` there" in capsys.readouterr().err
    assert run(monkeypatch, "erase", one, "k2", "--from", keys) == 0
    assert "3 samples erased; the current version is 4" in capsys.readouterr().out
    assert run(monkeypatch, "erase", one, "k2", "k3") == 0
    said = capsys.readouterr()
    assert "1 sample erased; the current version is 5" in said.out
    assert "1 key not in the split, such as k2" in said.err
    assert run(monkeypatch, "erase", one) == 2
    capsys.readouterr()
    assert run(monkeypatch, "merge", out, one, third, "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == 2
    assert Manifest.load(out).removed.tolist() == [1, 2, 3, 6]


def test_a_file_of_keys_that_cannot_be_read_and_a_split_that_is_given_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = written(tmp_path / "a", 0)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for command, option, name, why in (
        ("remove", "--from", "none", "No such file or directory"),
        ("erase", "--from", "bytes", "it is not UTF-8 text"),
    ):
        assert run(monkeypatch, command, split, option, tmp_path / name) == 2
        said = capsys.readouterr().err
        assert (
            f"{option} {tmp_path / name} cannot be read ({why}); pass a text file with one sample key per line" in said
        )
    for command in (("append", split, split), ("merge", tmp_path / "all", split, split)):
        assert run(monkeypatch, *command) == 1
        assert f"{split} was passed twice; pass each split once" in capsys.readouterr().err
    assert Manifest.load(split).version == 1


def test_an_ascii_terminal_shows_escapes(tmp_path: Path) -> None:
    split = written(tmp_path / "a", 0, names=("Zo\u00eb", "\u65e5"))
    words = [sys.executable, "-m", "maskstream", "inspect", str(split)]
    ended = subprocess.run(words, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert rb"Zo\xeb" in ended.stdout
    assert ended.stderr == b""


def test_keys_are_given_as_words_or_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    split, keys = written(tmp_path / "a", 0), tmp_path / "keys"
    keys.write_text("k1\n\n")
    for command in ("remove", "erase"):
        for option in ("--from", "--keys"):
            assert run(monkeypatch, command, split, "k0", option, keys) == 0
        assert run(monkeypatch, command, split) == 2
    assert Manifest.load(split).removed.tolist() == [0, 1]
