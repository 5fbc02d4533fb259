"""How many cores torch computes with when it trains on the CPU that also decodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def compute_threads(device: torch.device) -> Iterator[int]:
    """Inside, torch leaves one core to the loader if it trains on the CPU; the number of torch's threads.

    OpenMP's threads wait for each other by spinning. Where they are as many as the cores, one that lost its core to a
    decoding thread keeps all others spinning: on two busy cores steps took up to five times as long as with one thread.
    OMP_NUM_THREADS, which torchrun sets too, has the last word.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(before, len(os.sched_getaffinity(0)) - 1)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
