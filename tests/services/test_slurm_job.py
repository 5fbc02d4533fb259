"""`maskstream shards --executor slurm` on a real cluster: the bytes of a local run, also if a task's step is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.preprocess import make_shards
from maskstream.shards.format.records import RECORDS

from ..attacks.shard_kills import contents
from .server import wait_until
from .slurm import Slurm

pytestmark = pytest.mark.services

N_PICTURES, PARTS = 48, 3


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Noise that takes some time to encode, in 12 shards."""
    rng = np.random.default_rng(0)
    for number in range(N_PICTURES):
        path = tmp_path / "raw" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (1000, 1200, 3), dtype=np.uint8))
    return tmp_path / "raw"


def test_a_killed_task_of_the_array_runs_again_to_the_same_bytes(
    slurm_cluster: Slurm, raw: Path, tmp_path: Path
) -> None:
    settings = ("--samples-per-shard", "4", "--root", str(raw))
    command = [sys.executable, "-m", "maskstream", "shards", "image-folder", *settings, "--out", "out"]
    slurm = ["--executor", "slurm", "--parts", str(PARTS), "--sbatch", "--cpus-per-task=1", "--json"]
    env = {**os.environ, **slurm_cluster.env}
    said = subprocess.run([*command, *slurm], cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    parts, finish = json.loads(said)["jobs"]
    records = tmp_path / "out/train" / RECORDS
    wait_until(lambda: len(list(records.glob("*.record"))) > 1, lambda: None, 120)
    os.kill(slurm_cluster.watchers()[0], signal.SIGKILL)
    assert not (tmp_path / "out/train/dataset.json").exists()
    log = tmp_path / "slurm-image-folder/finish.log"

    def failed() -> str | None:
        states = slurm_cluster.states()
        bad = {job: state for job, state in states.items() if state in ("FAILED", "CANCELLED")}
        return f"{bad}: {log.read_text() if log.exists() else ''}" if bad else None

    wait_until(lambda: slurm_cluster.states().get(finish) == "COMPLETED", failed, 400)
    restarts = [slurm_cluster.call("scontrol", "show", "job", f"{parts}_{number}") for number in range(1, PARTS + 1)]
    assert sum("Restarts=1" in one for one in restarts) == 1, restarts
    make_shards("image-folder", raw, tmp_path / "here", samples_per_shard=4, workers=0)
    assert contents(tmp_path / "out") == contents(tmp_path / "here")
