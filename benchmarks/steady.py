"""Checks a loader for leaks: memory, file descriptors and seconds of each epoch over the same small data.

    python benchmarks/steady.py data/shards/sample/train [--epochs 20] [--workers 2] [--respawn]

Memory is the proportional set size (PSS), in which a page that processes share counts once, and the resident set of
this process alone; descriptors are those of this process and of its workers. With --respawn the worker processes end
after each epoch, as those of a DataLoader without persistent workers do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.shards.format.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """What an epoch left behind, in MB and numbers, and how long it took until its first batch and in all, in s."""

    epoch: int
    rss_mb: float
    pss_mb: float
    descriptors: int
    worker_descriptors: int
    first_batch_s: float
    seconds: float


def measured(data: Path, epochs: int, workers: int, batch_size: int, respawn: bool) -> list[Epoch]:
    """Runs through the data `epochs` times, with flow and motion-guided masks."""
    loader = video_loader(
        data,
        clip=VideoClip(frames=16, stride=4, size=112),
        mask=masks.MotionGuided(ratio=0.9),
        batch_size=batch_size,
        workers=workers,
        threads=1,
        device="cpu",
    )
    rows = []
    for epoch in range(epochs):
        start, first = time.perf_counter(), 0.0
        for n, batch in enumerate(loader):
            if n == 0:
                first = time.perf_counter() - start
            if batch.flow is None:
                raise SystemExit("the batches have no flow, which this benchmark measures too; use shards of video")
        seconds = time.perf_counter() - start
        children = [p.pid for p in multiprocessing.active_children() if p.pid is not None]
        rows.append(
            Epoch(
                epoch=epoch,
                rss_mb=_memory(os.getpid(), "Rss"),
                pss_mb=sum(_memory(pid, "Pss") for pid in (os.getpid(), *children)),
                descriptors=len(os.listdir("/proc/self/fd")),
                worker_descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in children),
                first_batch_s=first,
                seconds=seconds,
            )
        )
        if respawn:
            loader.close()
    loader.close()
    return rows


def _memory(pid: int, kind: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"this system does not report the {kind} of a process; run on Linux")


def main() -> None:
    """Measures, prints a table and the slope of memory after the fifth epoch, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a split of video shards")
    parser.add_argument("--epochs", type=int, default=20, help="number of epochs")
    parser.add_argument("--workers", type=int, default=0, help="worker processes of the loader")
    parser.add_argument("--batch-size", type=int, default=4, help="samples per batch")
    parser.add_argument("--respawn", action="store_true", help="end the worker processes after each epoch")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measured(given.data, given.epochs, given.workers, given.batch_size, given.respawn)
    table = Table(title=f"{len(Manifest.load(given.data))} samples an epoch, {given.workers} workers")
    for name in ("epoch", "RSS MB", "PSS MB, all", "fds", "fds of workers", "first batch s", "epoch s"):
        table.add_column(name, justify="right")
    for r in rows:
        figures = (f"{r.rss_mb:.1f}", f"{r.pss_mb:.1f}", r.descriptors, r.worker_descriptors)
        table.add_row(*map(str, (r.epoch, *figures, f"{r.first_batch_s:.2f}", f"{r.seconds:.2f}")))
    console = Console(width=100, highlight=False)
    console.print(table)
    later = rows[5:]
    if len(later) > 1:
        slope = statistics.linear_regression([r.epoch for r in later], [r.pss_mb for r in later]).slope
        console.print(
            f"after epoch 5: PSS {slope:+.2f} MB an epoch; descriptors {sorted({r.descriptors for r in later})}, of "
            f"workers {sorted({r.worker_descriptors for r in later})}; median first batch "
            f"{statistics.median(r.first_batch_s for r in later):.2f} s, epoch "
            f"{statistics.median(r.seconds for r in later):.2f} s"
        )
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
