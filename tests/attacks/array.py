"""Parts of `maskstream shards` as the tasks of arrays of a Slurm cluster, which can be killed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import numpy as np

from maskstream.preprocess.executors.slurm import PARTS, SlurmJob

from ..services.slurm import Slurm
from .kills import LIMIT_S
from .processes import killed, pids, words_of, workers_of

_OVER = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


class Array:
    """Drivers that are tasks of arrays, one processor each.

    A kill hits the driver of a task, which Slurm then calls failed, its worker process, or Slurm's own process that
    watches the task, with all that is below it; Slurm runs that task again.
    """

    def __init__(self, root: Path, out: Path, cluster: Slurm) -> None:
        self._root, self._out, self._cluster = root, out, cluster
        self._scripts = 0

    def start(self, count: int) -> None:
        """See Drivers."""
        self._scripts += 1
        words = ("shards", "image-folder", "--root", str(self._root), "--out", str(self._out))
        job = SlurmJob(
            name="attack",
            folder=self._out.with_name(f"slurm-{self._scripts}"),
            command=(*words, "--samples-per-shard", "1", "--max-rejects", "0.2"),
            parts=count,
            workers=1,
            options=("--cpus-per-task=1",),
        )
        job.write()
        self._cluster.call("sbatch", "--parsable", str(job.folder / PARTS))

    def kill(self, rng: np.random.Generator, victim: str) -> bool:
        """See Drivers."""
        watchers = self._cluster.watchers()
        drivers = [pid for pid in pids() if {"--part", str(self._out)} <= set(words_of(pid))]
        workers = [one for pid in drivers for one in workers_of(pid)]
        victims = {"both": watchers, "driver": drivers, "worker": workers}[victim]
        return bool(victims) and killed(victims[rng.integers(len(victims))])

    def join(self) -> str:
        """See Drivers. A task that failed without having been killed says a traceback in its log."""
        last = time.monotonic() + LIMIT_S
        while not all(state in _OVER for state in self._cluster.states().values()):
            if time.monotonic() > last:
                subprocess.run(
                    ["scancel", "--full", "--user=root"], env={**os.environ, **self._cluster.env}, check=False
                )
                return "hang"
            time.sleep(0.3)
        logs = self._out.parent.glob("slurm-*/part-*.log")
        return "foreign" if any("Traceback" in log.read_text() for log in logs) else "finished"
