"""Kills parts of `maskstream shards` at random moments, while their number changes in mid-job.

Several parts run at once, each a driver with a worker process: here, in a Ray cluster, or as the tasks of an array of
Slurm. A kill hits a driver, a worker, or a driver with all of its processes. Then parts of another number begin, often
while the others still run, so that two of them write the same shard. At the end a finish must find every shard, and the
folder must hold the files of an undisturbed run and nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from maskstream.preprocess import make_shards
from maskstream.shards.format.records import RECORDS
from maskstream.shards.stores.local_files import LOCK

from . import shard_kills
from .array import Array
from .kills import FORKS, LIMIT_S, ended, in_group
from .processes import killed, pids, words_of, workers_of
from .where import HERE, Where

NUMBERS = (1, 3, 7)
"""How many parts a job may have at a time."""
VICTIMS = ("driver", "worker", "both")
MOST_KILLS = 5
"""How often a job is killed before it may finish."""
ORPHANS_S = 10.0


def run(
    root: Path, out: Path, *, part: tuple[int, int] | None = None, finish: bool = False, where: Where = HERE
) -> None:
    """The command's work."""
    where.enter()
    settings = {"max_rejects": 0.2, "samples_per_shard": 1, "pauses_s": (0.01, 0.02)}
    executor = None if part is None else where.executor()
    workers = 1 if executor is None else None
    make_shards("image-folder", root, out, workers=workers, executor=executor, part=part, finish=finish, **settings)


class Drivers(Protocol):
    """The drivers that were started, a number of parts at a time."""

    def start(self, count: int) -> None:
        """Start all parts of a number."""

    def kill(self, rng: np.random.Generator, victim: str) -> bool:
        """Kill one; returns whether there was one."""

    def join(self) -> str:
        """Wait for all. "finished", or how one ended that nobody killed."""


class Forks:
    """Drivers that are processes of this machine; their workers too, or a Ray cluster's."""

    def __init__(self, root: Path, out: Path, where: Where) -> None:
        self._root, self._out, self._where = root, out, where
        self._processes: list[FORKS.Process] = []

    def start(self, count: int) -> None:
        """See Drivers."""
        for number in range(1, count + 1):
            job = partial(run, self._root, part=(number, count), where=self._where)
            self._processes.append(FORKS.Process(target=in_group, args=(job, self._out)))
            self._processes[-1].start()

    def kill(self, rng: np.random.Generator, victim: str) -> bool:
        """See Drivers."""
        alive = [process.pid or 0 for process in self._processes if process.is_alive()]
        if not alive:
            return False
        chosen = alive[rng.integers(len(alive))]
        workers = workers_of(chosen) if self._where.address is None else workers_of_ray()
        hit = victim != "worker" and killed(chosen, group=victim == "both")
        if workers and (victim == "worker" or (victim == "both" and self._where.address is not None)):
            hit |= killed(workers[rng.integers(len(workers))])
        return hit

    def join(self) -> str:
        """See Drivers."""
        last = time.monotonic() + LIMIT_S
        for process in self._processes:
            process.join(max(0, last - time.monotonic()))
            if process.exitcode is None:
                os.killpg(process.pid or 0, signal.SIGKILL)
                return "hang"
            if process.exitcode not in (0, -signal.SIGKILL):
                return "foreign" if process.exitcode > 0 else "signal"
        self._processes = []
        return "finished"


def workers_of_ray() -> list[int]:
    """The processes of this machine in which Ray runs a task."""
    return [pid for pid in pids() if words_of(pid)[0].startswith("ray::_supervised")]


def left_over(out: Path) -> list[str]:
    """The files that a finished job must not leave: temporary ones, also of records, and the lock."""
    paths = [*out.rglob("*.tmp"), *out.rglob(LOCK)]
    records = {path.name for path in out.glob(f"*/{RECORDS}/*")}
    return sorted([path.name for path in paths] + [name for name in records if not name.endswith((".record", ".json"))])


def settled(out: Path, wanted: dict[str, str]) -> bool:
    """Whether the folder holds what is wanted and nothing else, once the workers of killed drivers have ended too."""
    last = time.monotonic() + ORPHANS_S
    while left_over(out) or shard_kills.contents(out) != wanted:
        if time.monotonic() > last:
            return False
        time.sleep(0.2)
    return True


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Kills parts `count` times."""
    root, whole = folder / "raw", folder / "whole"
    shard_kills.pictures(root, seed)
    for out in (folder / "warm", whole):
        begun = time.monotonic()
        assert ended(partial(run, root), out) == "finished"
        length_s = time.monotonic() - begun + where.start_s
    wanted = shard_kills.contents(whole)
    rng, ends, out = np.random.default_rng(seed), Counter[str](), folder / "out"
    while ends.total() < count:
        number = ends.total()
        drivers: Drivers = Forks(root, out, where) if where.slurm is None else Array(root, out, where.slurm)
        hits, end = Counter[str](), "finished"
        for _ in range(min(int(rng.integers(1, MOST_KILLS + 1)), count - number)):
            parts, victim = NUMBERS[rng.integers(len(NUMBERS))], VICTIMS[rng.integers(len(VICTIMS))]
            drivers.start(parts)
            time.sleep(rng.uniform(0, length_s * (1 + parts / 4)))
            hits[f"{victim} of {parts}"] += drivers.kill(rng, victim)
            if rng.random() < 0.5:
                end = drivers.join()
            if end != "finished":
                break
        if end == "finished":
            end = drivers.join()
        if end == "finished":
            drivers.start(NUMBERS[rng.integers(len(NUMBERS))])
            end = drivers.join()
        if end == "finished" and number + hits.total() < count and rng.random() < 0.5:
            ended(partial(run, root, finish=True), out, killed_after_s=rng.uniform(0, length_s))
            hits["finish"] += 1
        if end == "finished":
            end = ended(partial(run, root, finish=True), out)
        if end == "finished":
            end = "exact" if settled(out, wanted) else "wrong"
        if end != "exact":
            print(f"{end}: seed {seed}, after kill {number + hits.total()} ({dict(hits)}): {left_over(out)}")
        ends[end] += max(1, hits.total()) if end != "exact" else hits.total()
        shutil.rmtree(out, ignore_errors=True)
    return ends
