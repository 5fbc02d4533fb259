"""The scripts for Slurm: what is in them, what is submitted, and what a part run by one writes."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from maskstream.preprocess.executors.slurm import SlurmJob

SBATCH = """#!/bin/sh
echo "$@" >> calls
[ -e refuse ] && { echo "sbatch: error: invalid partition" >&2; exit 1; }
echo "$((40 + $(wc -l < calls)));cluster"
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return SlurmJob(
        name="maskstream-k400",
        folder=Path("slurm k400"),
        command=("shards", "k400", "--out", "a b"),
        for_parts=("--retry-rejects",),
        parts=7,
        options=("--partition=x", "--comment=two words"),
    )


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin/sbatch"
    path.write_text(SBATCH)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return tmp_path / "calls"


def options_of(path):
    lines = path.read_text().splitlines()
    return [shlex.split(line)[1] for line in lines if line.startswith("#SBATCH ")], lines[-1]


def test_the_scripts_run_every_part_and_then_the_finish(job, tmp_path):
    parts, finish = job.write()
    options, command = options_of(parts)
    assert {"--array=1-7", "--requeue", "--partition=x", "--comment=two words"} <= set(options)
    assert f"--output={tmp_path}/slurm k400/part-%a.log" in options
    words = "-m maskstream shards k400 --out 'a b' --retry-rejects --part \"$SLURM_ARRAY_TASK_ID/7\""
    assert command == f'exec {sys.executable} {words} --workers "${{SLURM_CPUS_ON_NODE:-1}}"'
    options, command = options_of(finish)
    assert {"--partition=x", "--kill-on-invalid-dep=yes", f"--output={tmp_path}/slurm k400/finish.log"} <= set(options)
    assert not [option for option in options if option.startswith("--array")]
    assert "--finish" in command
    assert "--retry-rejects" not in command
    assert job.by_hand() == (
        "sbatch --dependency=afterok:$(sbatch --parsable 'slurm k400/parts.sh') 'slurm k400/finish.sh'"
    )


@pytest.mark.parametrize(
    "changed",
    [{"name": "x\ntouch ran"}, {"folder": Path("a\ntouch ran")}, {"options": ("--comment=a\r\nb",)}, {"name": "a\0"}],
)
def test_no_option_holds_another_line(job, changed):
    with pytest.raises(ValueError, match="contains a newline or null"):
        replace(job, **changed)


def test_no_folder_holds_another_line(job, tmp_path, monkeypatch):
    (tmp_path / "here\ntouch ran").mkdir()
    monkeypatch.chdir(tmp_path / "here\ntouch ran")
    with pytest.raises(ValueError, match="contains a newline or null"):
        replace(job, folder=Path("slurm"))


def test_a_shell_runs_a_script_where_it_was_written(job, tmp_path):
    parts, _ = job.write()
    parts.write_text(parts.read_text().replace(f"exec {sys.executable} -m", "exec echo"))
    env = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_ON_NODE": "16", "PATH": os.environ["PATH"]}
    said = subprocess.run([parts.resolve()], cwd="/", env=env, capture_output=True, text=True, check=True).stdout
    assert said == "maskstream shards k400 --out a b --retry-rejects --part 3/7 --workers 16\n"


def test_it_is_submitted_where_there_is_slurm(job, sbatch):
    job.write()
    assert job.submit() == ("41", "42")
    assert sbatch.read_text().splitlines() == [
        "--parsable slurm k400/parts.sh",
        "--parsable --dependency=afterok:41 slurm k400/finish.sh",
    ]
    Path("refuse").touch()
    with pytest.raises(ValueError, match=r"refused slurm k400/parts\.sh: sbatch: error: invalid partition; change"):
        job.submit()


def test_nothing_is_submitted_elsewhere(job, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert job.submit() is None


@pytest.mark.parametrize("parts", [0, 1001])
def test_more_parts_than_slurm_takes_are_refused(parts):
    with pytest.raises(ValueError, match="must lie between 1 and 1000"):
        SlurmJob(name="x", folder=Path("x"), command=(), parts=parts)
