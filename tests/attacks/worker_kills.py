"""Kills, stops and crashes worker processes of a loader: every batch is the one of an undisturbed loader, when it comes
and as long as it is kept.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.pipelines.modalities.image.data import image_loader

from ..pipelines.every_modality import IMAGE, MODALITIES, write_split
from .where import HERE, Where

SIZE, KEPT = 160, 6
"""Of these pictures batches lie in memory files, which workers write again; so many are kept and looked at again."""
WORKERS, APART = 2, 14
"""A dead worker is noticed when all that it had made is handed out, up to 8 batches later; the next kill comes then."""
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGABRT)


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Ends a worker `count` times, at random moments of one run over pictures."""
    modality = MODALITIES["image"]
    split = where.copied(write_split("image", (folder if where.store != "http" else where.root) / "image"))
    settings: dict[str, Any] = {**IMAGE, "size": SIZE, "batch_size": 3, "seed": seed, "device": "cpu", "threads": 1}
    held: deque[tuple[Any, Any]] = deque()
    rng, ends = np.random.default_rng(seed), Counter[str]()
    moments = {APART * kill + int(rng.integers(1, 4)): kill for kill in range(count)}
    with (
        closing(image_loader(split, **settings)) as plain,
        closing(image_loader(split, workers=WORKERS, worker_timeout=4.0, **settings)) as loader,
    ):
        wanted = islice(plain.repeat(), APART * (count + 1))
        pending, kill = "exact", 0
        for number, (one, batch) in enumerate(zip(wanted, loader.repeat(), strict=False)):  # kernels are compiled first
            held.append((batch, modality.rows(one)))
            if any(modality.rows(kept) != rows for kept, rows in held):
                pending = "wrong"
                print(f"wrong: seed {seed}, batch {number}, after kill {kill}")
            if len(held) == KEPT:
                del held[int(rng.integers(KEPT))]
            if number in moments:
                kill = moments[number]
                if kill:
                    ends[pending] += 1
                pending = "exact"
                pids = loader._production.pool.pids
                os.kill(pids[int(rng.integers(WORKERS))], SIGNALS[kill % len(SIGNALS)])
        ends[pending] += 1
        restarts = loader.stats()["restarts"]
    if restarts != count:
        print(f"missed: seed {seed}: {restarts} of {count} workers were replaced")
        return Counter(missed=count)
    return ends
