"""`maskstream shards` in parts, and handed over to Slurm."""

import json
import os
import shlex
import subprocess

import pytest

from ..attacks.shard_kills import contents, pictures
from .test_cli import run


@pytest.fixture
def raw(tmp_path, monkeypatch):
    pictures(tmp_path / "raw", 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path / "raw"


WORDS = ("shards", "image-folder", "--root", "raw", "--samples-per-shard", 3, "--max-rejects", 0.2)


def test_parts_and_a_finish_make_what_one_command_makes(monkeypatch, capsys, raw, tmp_path):
    assert run(monkeypatch, *WORDS, "--out", "whole", "--workers", 1) == 0
    assert run(monkeypatch, *WORDS, "--out", "out", "--workers", 1, "--part", "2/2") == 0
    assert run(monkeypatch, *WORDS, "--out", "out", "--finish") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "3 of 6 shards are not written yet: train/image-folder-000000.tar" in said
    assert run(monkeypatch, *WORDS, "--out", "out", "--workers", 1, "--part", "1/1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"]["shards_written"] == 3
    assert run(monkeypatch, *WORDS, "--out", "out", "--finish") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b"])
def test_what_is_no_part_is_a_wrong_command(monkeypatch, capsys, raw, part):
    assert run(monkeypatch, *WORDS, "--out", "out", "--part", part) == 2
    assert "expected 1/N to N/N" in " ".join(capsys.readouterr().err.split())


SLURM = ("--executor", "slurm", "--sbatch", "--partition=x --time=8:00:00", "--workers", 1, "--retry-rejects")


def test_slurm_gets_the_words_of_the_command(monkeypatch, capsys, raw, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run(monkeypatch, *WORDS, "--out", "out", *SLURM) == 0
    assert "--array=1-6" in capsys.readouterr().out
    assert run(monkeypatch, *WORDS, "--out", "out", *SLURM, "--parts", 2) == 0
    said = capsys.readouterr().out
    assert "sbatch --dependency=afterok:$(sbatch --parsable slurm-image-folder/parts.sh)" in said
    assert "# slurm-image-folder/parts.sh\n#!/bin/sh\n#SBATCH" in said
    assert "#SBATCH --partition=x" in said
    assert "--array=1-2" in said
    parts = tmp_path / "slurm-image-folder/parts.sh"
    words = shlex.split(parts.read_text().splitlines()[-1])
    own = ["--part", "$SLURM_ARRAY_TASK_ID/2", "--workers", "1"]
    assert words[4:6] == ["shards", "image-folder"]
    assert sorted(words[4:-4]) == sorted([*map(str, WORDS), "--out", "out", "--retry-rejects"])
    assert words[-4:] == own


@pytest.mark.slow
def test_the_scripts_for_slurm_make_what_one_command_makes(monkeypatch, raw, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run(monkeypatch, *WORDS, "--out", "out", *SLURM, "--parts", 2) == 0
    parts, finish = (tmp_path / "slurm-image-folder" / name for name in ("parts.sh", "finish.sh"))
    for part in (2, 1):
        subprocess.run([parts], env={**os.environ, "SLURM_ARRAY_TASK_ID": str(part)}, check=True)
    subprocess.run([finish], check=True)
    assert run(monkeypatch, *WORDS, "--out", "whole", "--workers", 1) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_wrong_options_are_refused_before_any_work(monkeypatch, capsys, raw, tmp_path):
    for words, says in (
        (("--executor", "pbs"), "--executor must be one of local"),
        (("--executor", "slurm", "--part", "1/2"), "starts the parts and the final step itself"),
        (("--executor", "slurm", "--overwrite"), "delete the output folder"),
        (("--executor", "slurm", "--parts", 5000), "parts=5000: the number of parts must lie"),
        (("--parts", 3), "require --executor slurm"),
        (("--sbatch", "-p x"), "require --executor slurm"),
    ):
        assert run(monkeypatch, *WORDS, "--out", "out", *words) == 2
        assert says in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, "shards", "k400", "--root", "nowhere", "--executor", "slurm") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "slurm-image-folder").exists()
