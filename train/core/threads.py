"""The number of threads that torch uses when it trains on the CPU that also decodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU = torch.device("cpu")


@contextmanager
def compute_threads(device: torch.device) -> Iterator[int]:
    """A context in which torch leaves one core to the loader if it computes on the CPU. Yields torch's thread count.

    OpenMP threads wait for each other by spinning. If there are as many threads as cores, a thread that loses its core
    to a decoding thread keeps all others spinning: on two busy cores, steps took up to five times as long as with one
    thread. If OMP_NUM_THREADS is set, as by torchrun, the count is not changed.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(before, len(os.sched_getaffinity(0)) - 1)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
