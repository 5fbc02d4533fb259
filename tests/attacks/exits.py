"""Processes that end: two ranks that train, jobs that make shards, and loaders left in the middle of an epoch.

They end as a script of one's own does, which takes the interpreter and all libraries apart, or as a command. All are
forks of a process that has imported everything and started no thread, so that an end costs little.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch._dynamo
import torch.distributed.fsdp  # noqa: F401  (a training imports these, which takes seconds)

from maskstream.cli import run
from maskstream.preprocess import make_shards
from maskstream.train import train
from maskstream.train.recipes import chosen_recipe

from ..pipelines.every_modality import MODALITIES, write_split
from ..ports import free_ports
from .shard_kills import pictures
from .train_kills import SMALL

AT_ONCE = 4
LIMIT_S = 300


def train_script(given: Path, out: Path, seed: int) -> None:
    """One of two ranks trains for one to three steps."""
    steps, recipe = 1 + seed % 3, chosen_recipe("mae-tiny", SMALL)
    train(recipe, given / "image/split", out, steps=steps, device="cpu", threads=1, progress=False)


def divided_script(given: Path, out: Path, seed: int) -> None:
    """The same with the weights divided among the ranks, whose group outlives the training."""
    steps, recipe = 1 + seed % 3, chosen_recipe("mae-tiny", SMALL)
    settings = {"steps": steps, "device": "cpu", "threads": 1, "progress": False, "parallel": "fsdp"}
    train(recipe, given / "image/split", out, **settings)


def train_command(given: Path, out: Path, seed: int) -> None:
    """The same by the command."""
    words = ["train", "mae-tiny", "--data", str(given / "image/split"), "--out", str(out), "--steps", str(1 + seed % 3)]
    sys.argv[1:] = [*words, "--device", "cpu", *(word for one in SMALL for word in ("--set", one))]
    run()


def shards_script(given: Path, out: Path, seed: int) -> None:
    """Makes shards in this process, which also reads what it wrote."""
    make_shards("image-folder", given / "raw", out, workers=0, max_rejects=0.2, samples_per_shard=2 + seed % 5)


def shards_command(given: Path, out: Path, seed: int) -> None:
    """The same by the command."""
    words = ["shards", "image-folder", "--root", str(given / "raw"), "--out", str(out)]
    sys.argv[1:] = [*words, "--workers", "1", "--max-rejects", "0.2"]
    run()


def loader_script(given: Path, out: Path, seed: int) -> None:
    """Leaves an iteration after no batch to two, while threads make more."""
    name = list(MODALITIES)[seed % len(MODALITIES)]
    loader = MODALITIES[name].loader(given / name / "split", batch_size=2, seed=seed, device="cpu", threads=2)
    batches = loader.repeat()
    for _ in range(1 + seed // len(MODALITIES) % 3):
        next(batches)
    globals()["left"] = batches  # until the interpreter is taken apart


JOBS = (train_script, divided_script, train_command, shards_script, shards_command, loader_script)
OF_RANKS = (train_script, divided_script, train_command)


def attack(number: int, seed: int, folder: Path) -> Counter[str]:
    """Ends `number` processes, of all jobs in turn."""
    pictures(folder / "raw", seed)
    for modality in MODALITIES:
        write_split(modality, folder / modality)
    command = [sys.executable, "-m", f"{__package__}.exits", str(folder), str(number), str(seed)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    *bad, ends = said.splitlines()
    print("".join(f"{line}\n" for line in bad), end="")
    return Counter(json.loads(ends))


def _groups(folder: Path, seed: int) -> Iterator[list[Callable[[], None]]]:
    """What the processes do that run together, one job after the other, without end."""
    for number in count(seed):
        job = JOBS[number % len(JOBS)]
        work = partial(job, folder, folder / f"out/{number}", number)
        if job not in OF_RANKS:
            yield [work]
            continue
        [port] = free_ports(1)
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        yield [partial(_as_rank, work, meeting | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]


def _as_rank(work: Callable[[], None], told: dict[str, str]) -> None:
    os.environ.update(told)
    work()


def _forked(folder: Path, number: int, seed: int) -> Callable[[], None] | None:
    """Forks the processes; returns what to do in each of them, and None in the parent, which prints how they ended."""
    ends, running, groups = Counter[str](), dict[int, tuple[str, float]](), _groups(folder, seed)
    left = number
    while left > 0 or running:
        if left > 0 and len(running) < AT_ONCE:
            for work in next(groups):
                if (child := os.fork()) == 0:
                    os.dup2(2, 1)
                    return work
                running[child] = (repr(work), time.monotonic() + LIMIT_S)
                left -= 1
            continue
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            time.sleep(0.01)
            for late in [one for one, (_, limit) in running.items() if limit < time.monotonic()]:
                os.kill(late, signal.SIGKILL)
            continue
        name, limit = running.pop(child)
        code = os.waitstatus_to_exitcode(status)
        end = "ended" if code == 0 else "foreign" if code > 0 else "hang" if limit < time.monotonic() else "signal"
        if end != "ended":
            print(f"{end}: seed {seed}: {name} ended with {code}")
        ends[end] += 1
    print(json.dumps(ends))
    return None


if __name__ == "__main__":
    asked = _forked(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    if asked is not None:
        asked()
