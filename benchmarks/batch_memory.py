"""What the memory of batches costs: CPU ms and page faults of a clip, over all processes of a loader, in threads with
fresh memory, with kept memory, and in worker processes; as uint8 and, in threads, as floats.

    OMP_NUM_THREADS=1 python benchmarks/batch_memory.py data/shards/sample/train [--batch-size 16]

The ways take turns. In a turn a loader gives batches and makes as many ahead, until it does nothing. Figures are
medians over the rounds; a ratio is within a round, behind it the quartiles.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from machine import facts
from turns import in_turns, quartiles

from maskstream.pipelines import VideoClip, video_loader
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream import kept
from maskstream.pipelines.stream.loader import Loader

QUIET_S = 0.1
OWN = kept._kept


class Fresh(kept.OwnMemory):
    """Keeps nothing."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array of any content."""
        return np.empty(shape, dtype)


class Way(NamedTuple):
    """A loader with `workers`, the memory of this process, and whether its batches become floats."""

    workers: int = 0
    memory: kept.KeptMemory[Any] = OWN
    floats: bool = False


WAYS = {
    "threads, fresh": Way(memory=Fresh()),
    "threads": Way(),
    "1 worker": Way(workers=1),
    "2 workers": Way(workers=2),
    "floats, fresh": Way(memory=Fresh(), floats=True),
    "floats": Way(floats=True),
}


def spent(pids: list[int]) -> tuple[float, int]:
    """The CPU ms of this process and of others, and their page faults."""
    clocks = [time.CLOCK_PROCESS_CPUTIME_ID, *((~pid << 3) | 2 for pid in pids)]  # as clock_getcpuclockid(3) has them
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in ("self", *pids)]
    return 1e3 * sum(map(time.clock_gettime, clocks)), sum(int(stat[7]) for stat in stats)


def settled(pids: list[int]) -> tuple[float, int]:
    """The same once they do nothing."""
    before = spent(pids)
    while True:
        time.sleep(QUIET_S)
        after = spent(pids)
        if after[0] - before[0] < 1e3 * QUIET_S / 20:
            return after
        before = after


def turn_of(loader: Loader[VideoBatch], way: Way, clips: int, faults: list[float]) -> Callable[[], float]:
    """Gives the batches of so many clips; returns the CPU ms of each."""
    stream = loader.repeat()

    def turn() -> float:
        kept._kept = way.memory
        batch = next(stream)
        pool = loader._production.pool  # type: ignore[attr-defined]
        pids = [] if pool is None else pool.pids
        before, made = settled(pids), 0
        while made < clips:
            batch = next(stream)
            if way.floats:
                batch.pixel_values()
            made += len(batch)
        after = settled(pids)
        faults.append((after[1] - before[1]) / made)
        return (after[0] - before[0]) / made

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--clips", type=int, default=96, help="in each turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    faults: dict[str, list[float]] = {name: [] for name in arguments.only}
    turns = {}
    for name in arguments.only:
        loader = video_loader(
            arguments.data,
            clip=VideoClip(align=4),
            batch_size=arguments.batch_size,
            device="cpu",
            workers=WAYS[name].workers,
            threads=1,
        )
        turns[name] = turn_of(loader, WAYS[name], arguments.clips, faults[name])
    found = in_turns(turns, arguments.rounds)
    rows: dict[str, Any] = {}
    for name, values in found.items():
        way = WAYS[name]
        base = found.get("floats, fresh" if way.floats else "threads" if way.workers else "threads, fresh", values)
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        rows[name] = {
            "cpu_ms": round(median(values), 2),
            "faults": round(median(faults[name]), 1),
            "ratio": [round(q, 3) for q in quartiles(ratios)],
        }
    print(json.dumps({"clips": rows, **facts(("maskstream", "av", "numpy", "torch"))}, indent=1))


if __name__ == "__main__":
    main()
