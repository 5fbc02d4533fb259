"""The cost of opening, of the first batch and of a resume with a million samples in ten thousand shards.

    python benchmarks/big_index.py [--shards 10000] [--per-shard 100]

Two splits are made once. `spread` has a realistic index: ten GOPs per sample, offsets and checksums that do not repeat;
it has no tars and is only opened. `linked` can be read: each of its shards is a link to one real tar, so its bytes come
from the page cache. Each figure is the median over fresh processes, without imports; all are printed and written as
JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = 5
WORKERS = 2


def main() -> None:
    arguments = parse()
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](arguments.data)))
        return
    from big_split import make_splits
    from machine import facts

    make_splits(arguments.data, arguments.shards, arguments.per_shard)
    rows = {}
    for name, folder in (("open", "spread"), ("loader", "linked"), ("workers", "linked")):
        rows[name] = [_in_a_fresh_process(name, arguments.data / folder) for _ in range(RUNS)]
        for figure in rows[name][0]:
            values = sorted(float(row[figure]) for row in rows[name])
            print(f"  {figure:<44} {values[RUNS // 2]:>9.3f}  ({values[0]:.3f} to {values[-1]:.3f})", flush=True)
    depends_on = facts(("numpy", "pyarrow", "torch"))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": depends_on, **rows}, indent=1) + "\n")
    for key, value in depends_on.items():
        print(f"  {key}: {value}")
    print(f"wrote {arguments.out}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shards", type=int, default=10_000, help="shards of each split")
    parser.add_argument("--per-shard", type=int, default=100, help="samples per shard")
    parser.add_argument("--data", type=Path, default=ROOT / "runs/bench/big_index", help="folder of the splits")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench/big_index.json", help="the JSON file to write")
    parser.add_argument("--measure", choices=tuple(MEASURES), help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_fresh_process(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--data", str(folder)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def measure_open(folder: Path) -> dict[str, float]:
    """Measures opening the index, in a process that imports only `maskstream.shards`."""
    from maskstream.shards.format.manifest import Manifest

    before = _rss_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    opened = Manifest.load(folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "open, wall s": wall,
        "open, CPU s": cpu,
        "open, MB that stay": _rss_mb() - before,
        "open, MB at the peak, all of the process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "manifest.parquet, MB": (folder / "manifest.parquet").stat().st_size / 1e6,
        "samples": len(opened),
    }


def measure_loader(folder: Path) -> dict[str, float]:
    """Measures the first batch at the start and in the middle of an epoch, and saving a position."""
    from maskstream.pipelines import VideoClip, masks, video_loader

    settings: dict[str, Any] = {"clip": VideoClip(), "mask": masks.Tube(), "batch_size": 8, "device": "cpu"}
    figures = {}
    start = time.perf_counter()
    loader = video_loader(folder, **settings)
    figures["loader made, wall s"] = time.perf_counter() - start
    next(iter(loader))
    figures["first batch since nothing, wall s"] = time.perf_counter() - start
    for name, at in (("start", 0), ("middle", len(loader) // 2), ("end", len(loader) - 4)):
        loader.seek(1, at)
        state = json.loads(json.dumps(loader.state_dict()))
        start = time.perf_counter()
        loader.load_state_dict(state)
        next(iter(loader))
        figures[f"resume at the {name} of an epoch, wall s"] = time.perf_counter() - start
    figures["state, bytes of JSON"] = len(json.dumps(loader.state_dict()))
    figures["MB at the peak, all of the process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def measure_workers(folder: Path) -> dict[str, float]:
    """Measures the memory of worker processes after each has made a batch."""
    from maskstream.pipelines import VideoClip, masks, video_loader

    settings: dict[str, Any] = {"clip": VideoClip(), "mask": masks.Tube(), "batch_size": 8, "device": "cpu"}
    start = time.perf_counter()
    loader = video_loader(folder, workers=WORKERS, threads=1, **settings)
    batches = iter(loader)
    next(batches)
    figures = {f"first batch of {WORKERS} workers since nothing, wall s": time.perf_counter() - start}
    for _ in range(2 * WORKERS):
        next(batches)
    workers = [process.pid for process in multiprocessing.active_children() if process.pid is not None]
    own = [sum(_memory_mb(pid, kind) for kind in ("Private_Clean", "Private_Dirty")) for pid in workers]
    figures["a worker's own memory, MB"] = max(own)
    figures[f"all {1 + len(workers)} processes, what they share counted once, MB"] = sum(
        _memory_mb(pid, "Pss") for pid in (os.getpid(), *workers)
    )
    loader.close()
    return figures


def _memory_mb(pid: int, kind: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


MEASURES = {"open": measure_open, "loader": measure_loader, "workers": measure_workers}


if __name__ == "__main__":
    main()
