"""The cost of opening, of the first batch, of a resume and of writing, with a million samples in ten thousand shards.

    python benchmarks/big_index.py [--shards 10000] [--per-shard 100] [--only open|loader|workers|written]

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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskstream.shards.format.records import ShardRecord

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

    needed = {folder for name, folder in RUNS_OF.items() if arguments.only in (None, name)}
    make_splits(arguments.data, arguments.shards, arguments.per_shard, sorted(needed - {"one"}))
    os.environ["MASKSTREAM_BENCH_SHARDS"] = str(arguments.shards)
    os.environ["MASKSTREAM_CACHE"] = str(arguments.data / "cache")
    rows = {}
    for name, folder in RUNS_OF.items():
        if arguments.only not in (None, name):
            continue
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
    parser.add_argument("--only", choices=tuple(RUNS_OF), help="measure nothing else")
    parser.add_argument("--measure", choices=tuple(MEASURES), help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_fresh_process(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--data", str(folder)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def measure_open(folder: Path) -> dict[str, float]:
    """Measures opening the index in a process that imports only `maskstream.shards`: as the machine's first, and again.

    Memory of its own is what is not mapped from the index file, which all processes of a machine share.
    """
    import shutil

    from maskstream.shards.format.index_cache import cache_folder
    from maskstream.shards.format.manifest import Manifest

    shutil.rmtree(cache_folder(), ignore_errors=True)
    cold = time.perf_counter()
    Manifest.load(folder)
    cold = time.perf_counter() - cold
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = _own_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    opened = Manifest.load(folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    own = _own_mb() - before
    reads = time.perf_counter()
    steps = range(0, len(opened), max(len(opened) // 1000, 1))
    for i in steps:
        opened.video(i)
    return {
        "open as the first of a machine, wall s": cold,
        "the same, MB at the peak, all of the process": peak,
        "open after it, wall s": wall,
        "open after it, CPU s": cpu,
        "open after it, MB of its own": own,
        "index of a video, us": (time.perf_counter() - reads) / len(steps) * 1e6,
        "parts, MB": sum(path.stat().st_size for path in folder.glob("manifest-*.parquet")) / 1e6,
        "index file, MB": sum(path.stat().st_size for path in cache_folder().rglob("*.index")) / 1e6,
        "samples": len(opened),
    }


def measure_written(folder: Path) -> dict[str, float]:
    """Measures the writing of an index from the records of shards, which come one by one."""
    import tempfile
    from dataclasses import replace

    from big_split import INFO, read_record

    from maskstream.shards.format.dataset import finish_split

    record = read_record(folder)
    shards = int(os.environ["MASKSTREAM_BENCH_SHARDS"])

    def records() -> Iterator[ShardRecord]:
        for number in range(shards):
            rows = tuple(replace(row, key=f"big/{number:06d}-{i}") for i, row in enumerate(record.rows))
            yield replace(record, name=f"big-{number:06d}.tar", rows=rows)

    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        for number in range(shards):
            os.link(folder / "one-000000.tar", Path(out) / f"big-{number:06d}.tar")
        before = _own_mb()
        start = time.perf_counter()
        finish_split(out, INFO, records(), [])
        wall = time.perf_counter() - start
    return {
        "written, wall s": wall,
        "written, MB of the process before": before,
        "written, MB at the peak, all of the process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "written, samples": shards * len(record.rows),
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


def _own_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


MEASURES = {"open": measure_open, "loader": measure_loader, "workers": measure_workers, "written": measure_written}
RUNS_OF = {"open": "spread", "loader": "linked", "workers": "linked", "written": "one"}
"""The split that each is measured with."""


if __name__ == "__main__":
    main()
