"""Process-wide setup of a run: precision, threads, seeds, memory, and interruption."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import xxhash

from .options import Precision

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_CPU_INFO = Path("/proc/cpuinfo")


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type in which matrix products are computed; weights, moments and losses stay float32.

    "auto" is bf16 if `is_bf16_faster`, else float32. "fp16" needs a loss scale (step.py); it is for GPUs without bf16.

    Args:
        precision: Setting of the run.
        device: Device of the run.
    """
    if precision == "auto":
        return torch.bfloat16 if is_bf16_faster(device) else torch.float32
    return _TYPES[precision]


def is_bf16_faster(device: torch.device) -> bool:
    """Return whether a device computes faster in bf16: CUDA devices that support it, and CPUs with AMX or AVX-512
    BF16.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not _CPU_INFO.exists():
        return False
    flags = next((line for line in _CPU_INFO.read_text().splitlines() if line.startswith("flags")), "").split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


CPU = torch.device("cpu")


@contextmanager
def compute_threads(device: torch.device) -> Iterator[int]:
    """Run the block with one core left to the loader if torch computes on the CPU. Yields torch's thread count.

    OpenMP threads wait for each other by spinning. If there are as many threads as cores, a thread that loses its core
    to a decoding thread keeps all others spinning: on two busy cores, steps took up to five times as long as with one
    thread. If OMP_NUM_THREADS is set, as by torchrun, the count is not changed.

    Args:
        device: Device of the run.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(before, len(os.sched_getaffinity(0)) - 1)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run the block with torch's global generators seeded, and restore their state afterwards.

    Args:
        seed: The seed.
        device: A CUDA device whose generator is also seeded.
    """
    devices = [] if device is None or device.type != "cuda" else [device]
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also asks all devices: 0.16 ms, not 0.01
        if devices:
            with torch.cuda.device(devices[0]):
                torch.cuda.manual_seed(seed)
        yield


def derive_step_seed(seed: int, step: int, rank: int, micro_batch: int) -> int:
    """Return the seed of a model's random draws, such as dropout, in a micro-batch; a resumed run draws the same
    values.

    Args:
        seed: Seed of the run.
        step: Number of the step.
        rank: Rank of the process.
        micro_batch: Number of the micro-batch in the step.
    """
    return xxhash.xxh3_64_intdigest(f"{seed}/step {step}/rank {rank}/micro-batch {micro_batch}".encode()) >> 1


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The names of the settings in mallopt(3)."""
NEVER = -1
LARGEST = 2**31 - 1
GLIBC_LARGEST = 32 << 20
"""Largest value in bytes to which glibc raises the second threshold automatically; the first one is then twice as
large.
"""


@contextmanager
def keep_memory(device: torch.device) -> Iterator[None]:
    """Run the block with freed memory kept by glibc if torch computes on the CPU, and return the memory at the end.

    By default the activations of a step are returned to the system once its backward pass has freed them, and every
    page of them is a page fault in the next step: 15 to 20 % of a tiny step (docs/benchmarks.md). Blocks above 2 GiB
    are still returned. Other allocators, such as jemalloc, keep memory by themselves and are not changed.

    Args:
        device: Device of the run.
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


class StopRequest:
    """A context manager: SIGTERM and the first Ctrl-C set `asked`; a second Ctrl-C interrupts as usual, even where
    SIGINT is ignored, as in a job that a script started in the background.

    SIGTERM may arrive more than once for one stop, from a scheduler to all processes and from torchrun to its ranks.
    Within `saving` one Ctrl-C never interrupts, even if it is the second one, so that an impatient user does not lose
    the checkpoint. Python handles signals in the main thread only; in other threads `asked` stays False.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Run a block that the first Ctrl-C does not interrupt; the second one does."""
        if signal.SIGINT not in self._previous:
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) == self._ask:
                signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            before = self._previous[signal.SIGINT]
            signal.signal(signal.SIGINT, signal.default_int_handler if before == signal.SIG_IGN else before)
