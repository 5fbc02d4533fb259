"""Move batches to their device and transform them there, one batch ahead of the consumer on CUDA."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic

from .produce import BatchMaker, Made
from .sampler import BadRowsError, BatchPlan, BatchT, DraftT, Finish, HostT, RequestT
from .stats import Stats
from .tensors import torch


@dataclass(frozen=True, kw_only=True)
class Delivery(Generic[RequestT, DraftT, HostT, BatchT]):
    """Moves host batches to `device` and applies the device transform; `maker` recreates rows that it cannot use."""

    maker: BatchMaker[RequestT, DraftT, HostT]
    finish: Finish[HostT, BatchT]
    device: torch.device

    def batches(self, made: Iterator[tuple[BatchPlan, Made[HostT]]]) -> Generator[tuple[BatchT, Stats]]:
        """Yield the finished batches and their statistics.

        On CUDA, a thread pins, copies and transforms the next batch on a separate stream while the consumer computes on
        the current batch. The consumer's stream waits for the copy; the host does not.
        """
        if self.device.type != "cuda":
            for plan, one in made:
                yield self._finished(plan, one)
            return
        stream: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def fetch() -> tuple[BatchT, Stats, Any] | None:
            item = next(made, None)
            if item is None:
                return None
            with torch.cuda.stream(stream):
                return *self._finished(*item), stream.record_event()

        with ThreadPoolExecutor(1, thread_name_prefix="maskstream-copy") as thread:
            ahead = thread.submit(fetch)
            while (ready := ahead.result()) is not None:
                ahead = thread.submit(fetch)
                batch, stats, done = ready
                current = torch.cuda.current_stream(self.device)
                current.wait_event(done)
                batch.record_stream(current)
                yield batch, stats

    def _finished(self, plan: BatchPlan, made: Made[HostT]) -> tuple[BatchT, Stats]:
        while True:
            moved = self._moved(made)
            try:
                with made.stats.stage("finish"):
                    batch = self.finish(moved, self.device)
                batch.count_in(made.stats)
                return batch, made.stats
            except BadRowsError as error:
                made = self.maker.remake(plan, made, error.rows)

    def _moved(self, made: Made[HostT]) -> HostT:
        if self.device.type == "cpu":
            return made.batch
        with made.stats.stage("copy"):
            if self.device.type == "cuda":
                return made.batch.pin_memory().to(self.device, non_blocking=True)
            return made.batch.to(self.device)
