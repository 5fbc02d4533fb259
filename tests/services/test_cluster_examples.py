"""The scripts of examples/cluster for Slurm, as they stand there: an array of parts, its finish, and a training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskstream.shards.format.manifest import Manifest

from ..examples.running import EXAMPLES, losses
from .server import wait_until
from .slurm import Slurm

pytestmark = pytest.mark.services

CLUSTER = EXAMPLES / "cluster"
SMALL = ("--cpus-per-task=1", "--mem=0")


def submit(cluster: Slurm, folder: Path, *words: str) -> str:
    """The number of a job that runs in `folder`."""
    return cluster.call("sbatch", "--parsable", f"--chdir={folder}", *words).strip()


def wait(cluster: Slurm, job: str, folder: Path) -> None:
    """Waits until a job has succeeded."""

    def failed() -> str | None:
        state = cluster.states().get(job)
        logs = "".join(path.read_text() for path in folder.glob("*.log"))
        return f"{job} is {state}: {logs}" if state in ("FAILED", "CANCELLED", "TIMEOUT") else None

    wait_until(lambda: cluster.states().get(job) == "COMPLETED", failed, 400)


def test_an_array_of_parts_its_finish_and_two_ranks(
    slurm_cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "raw" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    out, python = tmp_path / "out", Path(sys.executable).parent
    settings = {"ROOT": tmp_path / "raw", "OUT": out, "DATASET": "image-folder", "DATA": out / "train"}
    settings |= {"RUN": tmp_path / "run", "RECIPE": "mae-tiny", "RANKS_PER_NODE": "2"}
    for name, value in {**settings, "PATH": f"{python}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, str(value))
    script = str(CLUSTER / "preprocess.sbatch")
    parts = submit(slurm_cluster, tmp_path, "--array=1-2", *SMALL, script)
    after = (f"--dependency=afterok:{parts}", "--array=1", "--export=ALL,FINISH=1")
    finish = submit(slurm_cluster, tmp_path, *after, *SMALL, script)
    node = ("--nodes=1", "--gpus-per-node=0", "--signal=TERM@10", f"--dependency=afterok:{finish}")
    words = ("--steps", "3", "--batch-size", "2", "--device", "cpu")
    train = submit(slurm_cluster, tmp_path, *node, *SMALL, str(CLUSTER / "train.sbatch"), *words)
    wait(slurm_cluster, train, tmp_path)
    assert len(Manifest.load(out / "train")) == 8
    assert len(losses(tmp_path / "run")) == 3
