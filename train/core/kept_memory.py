"""Memory that a step has freed is kept for the next one, where torch trains on the CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The names of the settings in mallopt(3)."""
NEVER = -1
LARGEST = 2**31 - 1
GLIBC_LARGEST = 32 << 20
"""What glibc lets the second threshold grow to by itself, in bytes; the first one is then twice as large."""


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """A context in which glibc keeps freed memory, if torch computes on the CPU; at its end it returns it.

    By default the activations of a step are returned to the system when its backward pass has freed them, and every
    page of them is a page fault in the next step: 15 to 20 % of a tiny step (docs/benchmarks.md). Blocks above 2 GiB
    are still returned. Other allocators, such as jemalloc, keep memory by themselves, and are left alone.
    """
    libc = ctypes.CDLL(None) if device.type == "cpu" and sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, LARGEST)
    libc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(MMAP_THRESHOLD, GLIBC_LARGEST)
        libc.mallopt(TRIM_THRESHOLD, 2 * GLIBC_LARGEST)
        libc.malloc_trim(0)
