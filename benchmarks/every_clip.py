"""Processor time of a clip in loaders of video, in one checkout or in two that take turns.

    OMP_NUM_THREADS=1 python benchmarks/every_clip.py
    OMP_NUM_THREADS=1 python benchmarks/every_clip.py --before ../old --rounds 25 floor clips tubes quarter

The clips are those of `benchmarks/loader.py --only train` (profile `train`, 16 frames at 224 x 224), in batches of all
16, a batch an epoch. A turn makes EPOCHS epochs, with one thread and no batch ahead; `floor` only decodes the same
packets. `workers` is the loader with two worker processes, over all processes. As in every_step.py, a checkout has one
process, and in every round each work is done in one and then in the other.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from batch_memory import settled
from clips import Form, Variant, build, built
from contest import ours
from loader import ROOT
from turns import compare, serve
from video_peers import FILES, clips_of, floor, loader_of

from maskstream.pipelines import masks
from maskstream.shards.format.dataset import DATASET_JSON

EPOCHS, OF_WORKERS = 2, 6
"""How many epochs a turn has."""
KNOWN_EPOCHS = 64
"""Of how many the packets of the floor are kept; then it begins again."""
LOADERS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "clips": ({}, lambda batch: batch),
    "tubes": ({"mask": masks.Tube()}, lambda batch: batch),
    "floats": ({}, lambda batch: batch.pixel_values()),
    "quarter": ({"mask": masks.Tube(ratio=0.75), "output": "tokens"}, lambda batch: batch),
}
"""The settings of each, and what is taken of its batches."""
WORKS = ("floor", *LOADERS, "workers")
PAIRS = (*((name, "floor") for name in ("clips", "tubes", "quarter")), ("floats", "clips"), ("workers", "clips"))


def work_of(name: str, variant: Variant) -> Callable[[], float]:
    """What makes the next epochs of a work, whose first epochs it has made; it returns the CPU ms of a clip."""
    count = len(variant.files)
    if name == "workers":
        loader = loader_of(variant, workers=2, prefetch=2)
        stream = loader.repeat()
        next(stream)
        pids = loader._production.pool.pids

        def of_all() -> float:
            before, _ = settled(pids)
            for _ in range(OF_WORKERS):
                next(stream)
            return (settled(pids)[0] - before) / OF_WORKERS / count

        of_all()
        return of_all
    epochs = epochs_of(name, variant)

    def alone(number: int = EPOCHS) -> float:
        gc.collect()
        start = time.process_time()
        for _ in range(number):
            next(epochs)
        return 1e3 * (time.process_time() - start) / number / count

    alone(2 * EPOCHS)
    gc.collect()
    gc.freeze()
    return alone


def epochs_of(name: str, variant: Variant) -> Iterator[None]:
    """Makes an epoch at a time; the clips of `floor` are those of the loaders."""
    if name == "floor":
        clips = clips_of(variant)
        for epoch in range(KNOWN_EPOCHS):
            clips(epoch)
        for epoch in cycle(range(KNOWN_EPOCHS)):
            for clip in clips(epoch):
                floor(clip)
            yield
    settings, take = LOADERS[name]
    make = ours(loader_of(variant, batch=len(variant.files), **settings), take)
    while True:
        for batch in make(()):
            del batch
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("works", nargs="*", choices=(*WORKS, []), help="all by default")
    parser.add_argument("--before", type=Path, help="another checkout to compare this folder's with")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data", type=Path, default=ROOT / "runs/bench", help="folder of the files and shards")
    parser.add_argument("--media", type=Path, default=ROOT / "data/raw/sample", help="the sample dataset's folder")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = args.data.resolve() / "clips"
    if not (clips / "train/train" / DATASET_JSON).exists():
        build(clips, args.media, Form(files=FILES), ("copy", "train"))
    work = cache(lambda name: work_of(name, built(clips, "train")))
    if args.serve:
        serve(WORKS, lambda name: work(name)())
    elif args.before:
        about = ("--data", str(args.data.resolve()))
        compare(Path(__file__), args.before, args.works, args.rounds, "clips", about=about, pairs=PAIRS)
    else:
        print(json.dumps({name: {"cpu ms": work(name)()} for name in args.works or WORKS}))


if __name__ == "__main__":
    main()
