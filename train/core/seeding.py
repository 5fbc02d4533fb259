"""Seeding: the seed of a model decides its initial weights, and the place of a micro-batch what is drawn for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import xxhash


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """A context in which torch's global generators, of the CPU and of a CUDA `device`, are seeded with `seed`.

    Their state is restored at the end.
    """
    devices = [] if device is None or device.type != "cuda" else [device]
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also asks all devices: 0.16 ms, not 0.01
        if devices:
            torch.cuda.manual_seed(seed)
        yield


def step_seed(seed: int, step: int, rank: int, micro_batch: int) -> int:
    """The seed of what a model draws for a micro-batch of a step, such as dropout: a resumed run draws the same."""
    return xxhash.xxh3_64_intdigest(f"{seed}/step {step}/rank {rank}/micro-batch {micro_batch}".encode()) >> 1
