"""Kills parts of `maskstream shards` at random moments, while their number changes in mid-job.

Several parts run at once, each a driver with a worker process. A kill hits a driver, a worker, or a driver with all of
its processes. Then parts of another number begin, often while the others still run, so that two of them write the same
shard. At the end a finish must find every shard, and the folder must hold the files of an undisturbed run and nothing
else.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from maskstream.preprocess import make_shards
from maskstream.shards.format.records import RECORDS
from maskstream.shards.stores.sole_writer import LOCK

from . import shard_kills
from .kills import FORKS, LIMIT_S, ended, in_group

NUMBERS = (1, 3, 7)
"""How many parts a job may have at a time."""
VICTIMS = ("driver", "worker", "both")
MOST_KILLS = 5
"""How often a job is killed before it may finish."""


def run(root: Path, out: Path, *, part: tuple[int, int] | None = None, finish: bool = False) -> None:
    """The command's work."""
    settings = {"max_rejects": 0.2, "samples_per_shard": 1, "pauses_s": (0.01, 0.02)}
    make_shards("image-folder", root, out, workers=1, part=part, finish=finish, **settings)


class Drivers:
    """The drivers that were started, and the number of parts of the last ones."""

    def __init__(self, root: Path, out: Path) -> None:
        self._root, self._out = root, out
        self.processes: list[FORKS.Process] = []

    def start(self, count: int) -> None:
        """Start all parts of a number."""
        for number in range(1, count + 1):
            job = partial(run, self._root, part=(number, count))
            self.processes.append(FORKS.Process(target=in_group, args=(job, self._out)))
            self.processes[-1].start()

    @property
    def alive(self) -> list[FORKS.Process]:
        return [process for process in self.processes if process.is_alive()]

    def kill(self, rng: np.random.Generator, victim: str) -> bool:
        """Kill one; returns whether there was one."""
        alive = self.alive
        if not alive:
            return False
        chosen = alive[rng.integers(len(alive))].pid or 0
        with suppress(ProcessLookupError):
            if victim == "both":
                os.killpg(chosen, signal.SIGKILL)
            elif victim == "driver":
                os.kill(chosen, signal.SIGKILL)
            elif workers := workers_of(chosen):
                os.kill(workers[rng.integers(len(workers))], signal.SIGKILL)
            else:
                return False
            return True
        return False

    def join(self) -> str:
        """Wait for all. "finished", or how one ended that nobody killed."""
        last = time.monotonic() + LIMIT_S
        for process in self.processes:
            process.join(max(0, last - time.monotonic()))
            if process.exitcode is None:
                os.killpg(process.pid or 0, signal.SIGKILL)
                return "hang"
            if process.exitcode not in (0, -signal.SIGKILL):
                return "foreign" if process.exitcode > 0 else "signal"
        self.processes = []
        return "finished"


def workers_of(pid: int) -> list[int]:
    """The worker processes of a driver."""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return []


def left_over(out: Path) -> list[str]:
    """The files that a finished job must not leave: temporary ones, also of records, and the lock."""
    paths = [*out.rglob("*.tmp"), *out.rglob(LOCK)]
    records = {path.name for path in out.glob(f"*/{RECORDS}/*")}
    return sorted([path.name for path in paths] + [name for name in records if not name.endswith((".record", ".json"))])


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Kills parts `count` times."""
    root, whole = folder / "raw", folder / "whole"
    shard_kills.pictures(root, seed)
    for out in (folder / "warm", whole):
        begun = time.monotonic()
        assert ended(partial(run, root), out) == "finished"
        length_s = time.monotonic() - begun
    wanted = shard_kills.contents(whole)
    rng, ends, out = np.random.default_rng(seed), Counter[str](), folder / "out"
    while ends.total() < count:
        number = ends.total()
        drivers, killed, end = Drivers(root, out), Counter[str](), "finished"
        for _ in range(min(int(rng.integers(1, MOST_KILLS + 1)), count - number)):
            parts, victim = NUMBERS[rng.integers(len(NUMBERS))], VICTIMS[rng.integers(len(VICTIMS))]
            drivers.start(parts)
            time.sleep(rng.uniform(0, length_s * (1 + parts / 4)))
            killed[f"{victim} of {parts}"] += drivers.kill(rng, victim)
            if rng.random() < 0.5:
                end = drivers.join()
            if end != "finished":
                break
        if end == "finished":
            end = drivers.join()
        if end == "finished":
            drivers.start(NUMBERS[rng.integers(len(NUMBERS))])
            end = drivers.join()
        if end == "finished" and number + killed.total() < count and rng.random() < 0.5:
            ended(partial(run, root, finish=True), out, killed_after_s=rng.uniform(0, length_s))
            killed["finish"] += 1
        if end == "finished":
            end = ended(partial(run, root, finish=True), out)
        if end == "finished":
            end = "exact" if shard_kills.contents(out) == wanted and not left_over(out) else "wrong"
        if end != "exact":
            print(f"{end}: seed {seed}, after kill {number + killed.total()} ({dict(killed)}): {left_over(out)}")
        ends[end] += max(1, killed.total()) if end != "exact" else killed.total()
        shutil.rmtree(out, ignore_errors=True)
    return ends
