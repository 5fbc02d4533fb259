"""A job array and a job after it run in the cluster of the tests."""

import os
import signal
from pathlib import Path

import pytest

from .server import wait_until
from .slurm import Slurm

pytestmark = pytest.mark.services


def test_an_array_and_its_finish(slurm_cluster: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "task.sh"
    script.write_text(f"#!/bin/sh\necho $SLURM_ARRAY_TASK_ID > {tmp_path}/$SLURM_ARRAY_TASK_ID.done\n")
    array = slurm_cluster.call("sbatch", "--parsable", "--array=1-3", f"--output={tmp_path}/log", str(script)).strip()
    last = slurm_cluster.call(
        "sbatch", "--parsable", f"--dependency=afterok:{array}", f"--output={tmp_path}/log", f"--wrap=ls {tmp_path}"
    ).strip()
    wait_until(lambda: slurm_cluster.states().get(last) == "COMPLETED", lambda: None)
    assert {path.stem for path in tmp_path.glob("*.done")} == {"1", "2", "3"}


def test_a_task_whose_step_is_killed_runs_again(slurm_cluster: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "task.sh"
    script.write_text(f"#!/bin/sh\n[ -e {tmp_path}/first ] && exit 0\necho $$ > {tmp_path}/first\nsleep 600\n")
    job = slurm_cluster.call("sbatch", "--parsable", "--requeue", f"--output={tmp_path}/log", str(script)).strip()
    wait_until((tmp_path / "first").exists, lambda: None)
    [watcher] = slurm_cluster.watchers(job)
    os.kill(watcher, signal.SIGKILL)
    wait_until(lambda: slurm_cluster.states().get(job) == "COMPLETED", lambda: None, 300)
