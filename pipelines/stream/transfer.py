"""Batches to a CUDA device, one ahead of the consumer."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from .stats import Stats

BatchT = TypeVar("BatchT")


def on_device(source: Iterator[tuple[BatchT, Stats]], device: torch.device) -> Generator[tuple[BatchT, Stats]]:
    """The batches on `device`; on the CPU as they are.

    A thread pins the next batch and copies it on a stream of its own while the consumer computes on this one. The
    consumer's stream waits for the copy, the host does not.
    """
    if device.type != "cuda":
        yield from source if device.type == "cpu" else ((batch.to(device), stats) for batch, stats in source)  # type: ignore[attr-defined]
        return
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def fetch() -> tuple[Any, Stats, Any] | None:
        item: tuple[Any, Stats] | None = next(source, None)
        if item is None:
            return None
        batch, stats = item
        with stats.stage("copy"), torch.cuda.stream(stream):
            moved = batch.pin_memory().to(device, non_blocking=True)
            return moved, stats, stream.record_event()

    with ThreadPoolExecutor(1, thread_name_prefix="maskstream-copy") as thread:
        ahead = thread.submit(fetch)
        while (item := ahead.result()) is not None:
            ahead = thread.submit(fetch)
            moved, stats, copied = item
            current = torch.cuda.current_stream(device)
            current.wait_event(copied)
            moved.record_stream(current)
            yield moved, stats
