"""From plans to host batches: a plan determines the samples of a batch, threads fill its rows."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Generic, NamedTuple, ParamSpec, TypeVar

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import MovedError, RemovedError, SampleError
from maskstream.shards.stores.base import UNHEEDED, Together

from .order import rank_share
from .rng import Place, run_progress, sample_rng
from .row_mix import RowMixOrder
from .row_order import RowOrder
from .sampler import BatchPlan, DraftT, HostT, RequestT, Sampler, Wanted
from .samples import BatchOrder
from .stats import Stats
from .tensors import torch, wrap_tensor
from .topology import compute_alone

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_TRIES = 16
_THREADS = "maskstream"
"""Name prefix of threads that create batches."""
AHEAD = 4
"""Number of batches after the ones being created whose ranges are announced."""


def plans(
    order: BatchOrder,
    epoch: int,
    first: int,
    rank: int,
    world_size: int,
    *,
    endless: bool = False,
    steps: int | None = None,
) -> Iterator[BatchPlan]:
    """Yield one rank's plans of an epoch from batch `first` on; with `endless`, also of all later epochs.

    `steps` is the length of the run in batches, from which progress is computed.
    """
    while True:
        for b, whole in enumerate(order.batches(epoch, first), start=first):
            mine, weight = rank_share(np.arange(len(whole.indexes)), rank, world_size)
            step = epoch * order.n_batches + b
            progress = run_progress(step, steps)
            yield BatchPlan(
                number=(epoch, b),
                indexes=whole.indexes[mine],
                epochs=whole.epochs[mine],
                rows=mine,
                first=Place(step, 0, len(whole.indexes), progress),
                weight=weight,
                packed=None if whole.packed is None else tuple(whole.packed[r] for r in mine.tolist()),
            )
        if not endless or order.n_batches == 0:
            return
        epoch, first = epoch + 1, 0


class Filled(NamedTuple):
    """Statistics of some rows, and the number of unusable candidates for each row."""

    stats: Stats
    tried: list[int]


class Tries(NamedTuple):
    """Number of a row's unusable candidates, and how many of them had been removed from their split."""

    unusable: int
    removed: int = 0

    def plus(self, error: SampleError) -> Tries:
        """Count another unusable candidate. Removed samples are not logged; moved ones are tried again."""
        if isinstance(error, MovedError):
            return self
        if isinstance(error, RemovedError):
            return Tries(self.unusable + 1, self.removed + 1)
        log.warning("replaced %s", error)
        return Tries(self.unusable + 1, self.removed)


class RowGroup(NamedTuple, Generic[RequestT]):
    """Rows of a batch that one thread fills."""

    rows: range
    """Row numbers."""
    wanted: Wanted
    """Samples planned for the rows."""
    request: RequestT
    """Request of each row's first candidate that is not known to be unusable."""
    tries: list[Tries]
    """Known unusable candidates of each row."""


class Announced(NamedTuple, Generic[RequestT]):
    """Requests of a batch, whose ranges stay announced until `announced` is dropped."""

    groups: list[RowGroup[RequestT]]
    announced: Together


class Begun(NamedTuple, Generic[DraftT]):
    """A batch whose rows are being filled; the ranges of its requests stay announced until `announced` is dropped."""

    draft: DraftT
    rows: list[Future[Filled]]
    stats: Stats
    announced: Together

    def cancel(self) -> None:
        """Stop filling further rows."""
        for rows in self.rows:
            rows.cancel()
        self.announced.drop()


class Made(NamedTuple, Generic[HostT]):
    """A host batch, its statistics, and the number of unusable candidates for each row."""

    batch: HostT
    stats: Stats
    tried: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class BatchMaker(Generic[RequestT, DraftT, HostT]):
    """Creates the host batch of a plan. It contains only settings, so it can be sent to worker processes."""

    sampler: Sampler[RequestT, DraftT, HostT]
    order: BatchOrder
    starts: Int64s | None = None
    """For a mixture, the first sample index of each part and the total number, int64 (parts + 1,)."""

    def drawn(self, plan: BatchPlan, *, row_by_row: bool = False) -> Announced[RequestT]:
        """Draw the requests of a batch and announce the ranges that they will read. With `row_by_row`, each row is a
        group.
        """
        n, together = len(plan), 1 if row_by_row else self.sampler.together
        # Many small rows form one group, because a task costs at least as much as a small row.
        parts = [range(at, min(at + together, n)) for at in range(0, n, together)]
        groups = [self._group(plan, rows) for rows in parts]
        requests = (group.request for group in groups)
        announced = Together(tuple(one for one in map(self.sampler.announce, requests) if one is not UNHEEDED))
        return Announced(groups, announced)

    def draw_ahead(self, plan: BatchPlan) -> Announced[RequestT] | None:
        """Draw the requests of a batch that is started later; None on an error, which `start` will raise."""
        try:
            return self.drawn(plan)
        except Exception:
            return None

    def start(
        self, pool: Executor, plan: BatchPlan, drawn: Announced[RequestT] | None = None, *, row_by_row: bool = False
    ) -> Begun[DraftT]:
        """Draw the masks that need no content, then submit the rows to `pool`; draws the requests if necessary.

        Masks are drawn for all rows before decoding starts, while their data is in the CPU cache. With `row_by_row`,
        each row is submitted separately, even if the sampler fills many together.
        """
        drawn = drawn or self.drawn(plan, row_by_row=row_by_row)
        sampler, stats, (groups, announced) = self.sampler, Stats(), drawn
        try:
            # The caller may be in inference mode, while the threads that fill these tensors are not.
            with _leave_inference():
                draft = sampler.allocate([group.request for group in groups])
                with stats.stage("mask"):
                    for group in groups:
                        sampler.mask(group.request, draft, group.rows)
            return Begun(draft, [pool.submit(self._fill, group, draft) for group in groups], stats, announced)
        except BaseException:
            announced.drop()
            raise

    def join(self, plan: BatchPlan, begun: Begun[DraftT]) -> Made[HostT]:
        """Wait for all rows and return the host batch."""
        stats = begun.stats
        try:
            filled = [rows.result() for rows in begun.rows]
        finally:
            begun.announced.drop()
        for rows in filled:
            stats.add(rows.stats)
        with stats.stage("collate"):
            batch = self.sampler.join(begun.draft)
        if not plan.weight.all():
            batch = batch.weighted(wrap_tensor(plan.weight))
        if self.starts is not None:  # a sample is replaced by one from the same part
            shown = plan.indexes if plan.packed is None else np.concatenate([row.indexes for row in plan.packed])
            parts = np.searchsorted(self.starts, shown, side="right") - 1
            batch = replace(batch, source=wrap_tensor(parts.repeat(len(batch) // max(len(shown), 1))))
        return Made(batch=batch, stats=stats, tried=tuple(tried for rows in filled for tried in rows.tried))

    def begin(
        self, threads: Threads, plan: BatchPlan, drawn: Announced[RequestT] | None
    ) -> tuple[Begun[DraftT], Future[Made[HostT]]]:
        """Start a batch, and submit the call that joins it."""
        begun = self.start(threads.rows, plan, drawn)
        joining = threads.rows if len(begun.rows) == 1 else threads.batches
        return begun, joining.submit(self.join, plan, begun)

    def remake(self, plan: BatchPlan, made: Made[HostT], bad: Mapping[int, SampleError]) -> Made[HostT]:
        """Recreate a batch with the next candidates in the rows `bad`; statistics are added."""
        for row, error in bad.items():
            log.warning("replaced %s", error)
            if made.tried[row] + 1 >= _TRIES:
                raise error
        tried = tuple(count + (row in bad) for row, count in enumerate(made.tried))
        plan = replace(plan, tried=tried)
        with _leave_inference(), ThreadPoolExecutor(1, initializer=compute_alone) as pool:
            other = self.join(plan, self.start(pool, plan))
        stats = other.stats
        samples, replaced = stats.samples, stats.bad
        stats.add(made.stats)
        stats.samples, stats.bad = samples, replaced
        return other

    def name_samples(self, plan: BatchPlan) -> list[str | SampleError]:
        """Return the key of each sample of a batch, or the reason why it cannot be used, without reading data.

        A sample that was removed from its split is replaced, as in the batch.
        """
        reserve = self.order.reserve
        if isinstance(self.order, RowOrder | RowMixOrder):  # a packed row replaces its samples itself
            reserve = self.order.samples.reserve
        each = plan.each()
        if plan.packed is not None:
            each = [
                Wanted(indexes=row.indexes, epochs=row.epochs, rows=one.rows.repeat(len(row.indexes)), first=one.first)
                for one, row in zip(each, plan.packed, strict=True)
            ]
        return [self._name_sample(one, reserve) for row in each for one in row.each()]

    def _name_sample(self, wanted: Wanted, reserve: Reserve) -> str | SampleError:
        found: str | SampleError | None = None
        for candidate in candidates(wanted, self.sampler.seed, reserve):
            try:
                return self.sampler.request(candidate).keys[0]
            except RemovedError as removed:
                found = removed
            except SampleError as error:
                return error
        assert found is not None
        return found

    def _group(self, plan: BatchPlan, rows: range) -> RowGroup[RequestT]:
        """Request rows, each with its first usable candidate."""
        wanted, known = plan.part(slice(rows.start, rows.stop)), plan.tried[rows.start : rows.stop]
        if not any(known):
            with suppress(SampleError):
                return RowGroup(rows, wanted, self.sampler.request(wanted), [Tries(0)] * len(rows))
        # Request samples one by one to find the unusable ones; the whole request is then drawn again with replacements.
        tries = map(Tries, known or [0] * len(rows))
        found = [self._find_usable(one, unusable) for one, unusable in zip(wanted.each(), tries, strict=True)]
        shown = wanted.replaced([int(one.indexes[0]) for one, _, _ in found])
        request = found[0][1] if len(found) == 1 else self.sampler.request(shown)
        return RowGroup(rows, wanted, request, [tries for _, _, tries in found])

    def _find_usable(
        self, wanted: Wanted, tries: Tries, error: SampleError | None = None
    ) -> tuple[Wanted, RequestT, Tries]:
        """Find a row's next usable candidate; returns it with its request and the tries before it.

        `tries` are already known; `error` belongs to the last of them.
        """
        left = candidates(wanted, self.sampler.seed, self.order.reserve)
        for candidate in islice(left, tries.unusable, None):
            try:
                return candidate, self.sampler.request(candidate), tries
            except SampleError as lacking:
                tries, error = tries.plus(lacking), lacking
        raise error or ValueError(f"all {tries.unusable} candidates of a row are unusable; a row has at most {_TRIES}")

    def _fill(self, group: RowGroup[RequestT], draft: DraftT) -> Filled:
        """Fill the rows of a group together; if a sample is unusable, refill one by one to find it."""
        rows, wanted, request, tries = group
        if len(rows) > 1:
            stats = Stats(samples=len(rows), bad=sum(one.unusable - one.removed for one in tries))
            with suppress(SampleError):
                self.sampler.fill(request, draft, rows, stats)
                return Filled(stats, [one.unusable for one in tries])
        stats, tried = Stats(), []
        for row, one, known in zip(rows, wanted.each(), tries, strict=True):
            own, unusable = self._fill_row(one, request if len(rows) == 1 else None, draft, row, known)
            stats.add(own)
            tried.append(unusable)
        return Filled(stats, tried)

    def _fill_row(
        self, wanted: Wanted, request: RequestT | None, draft: DraftT, row: int, tries: Tries
    ) -> tuple[Stats, int]:
        """Fill a row with its first usable candidate, starting with `request`; returns the number of unusable ones."""
        redrawn = Stats()
        if request is None:
            _, request, tries = self._find_usable(wanted, tries)
        while True:
            stats = Stats(samples=1)
            try:
                self.sampler.fill(request, draft, [row], stats)
            except SampleError as error:
                _, request, tries = self._find_usable(wanted, tries.plus(error), error)
            else:
                stats.add(redrawn)
                stats.bad += tries.unusable - tries.removed  # packed rows have counted their own
                return stats, tries.unusable
            with redrawn.stage("mask"):
                self.sampler.mask(request, draft, [row])


Reserve = Callable[[int, np.random.Generator], int]
"""Returns a replacement for a sample, as `BatchOrder.reserve`."""


def candidates(wanted: Wanted, seed: int, reserve: Reserve) -> Iterator[Wanted]:
    """Yield a sample, then its replacements in turn while each is unusable."""
    yield wanted
    index = int(wanted.indexes[0])
    rng = sample_rng(seed, int(wanted.epochs[0]), str(index), 0, "reserve")
    for _ in range(_TRIES - 1):
        index = reserve(index, rng)
        yield wanted.replaced([index])


def batch_of(sampler: Sampler[RequestT, DraftT, HostT], wanted: Wanted, stats: Stats | None = None) -> HostT:
    """Create the host batch of the `wanted` samples in this thread.

    Raises:
        SampleError: A sample is unusable.
    """
    stats = Stats() if stats is None else stats
    parts = [range(at, min(at + sampler.together, len(wanted))) for at in range(0, len(wanted), sampler.together)]
    requests = [sampler.request(wanted.part(slice(rows.start, rows.stop))) for rows in parts]
    draft = sampler.allocate(requests)
    for rows, request in zip(parts, requests, strict=True):
        with stats.stage("mask"):
            sampler.mask(request, draft, rows)
        stats.samples += len(rows)
        sampler.fill(request, draft, rows, stats)
    return sampler.join(draft)


def _leave_inference() -> AbstractContextManager[object]:
    """Leave inference mode if it is active; leaving it unconditionally would take as long as filling a small row."""
    is_in_it = "torch" in sys.modules and torch.is_inference_mode_enabled()
    return torch.inference_mode(False) if is_in_it else nullcontext()


class InCaller(Executor):
    """Executor that runs submitted calls immediately in the calling thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call and return a finished future with its result or error."""
        done: Future[T] = Future()
        try:
            with _leave_inference():
                done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class Threads(NamedTuple):
    """Threads of this process that fill rows, and the thread that joins them to batches.

    A batch whose rows are a single task is joined by the former. A loader keeps its threads over all epochs: native
    libraries never release all memory that they allocate per thread, so new threads for each epoch would leak 2 kB per
    epoch.
    """

    rows: Executor
    batches: Executor

    @classmethod
    def of(cls, threads: int) -> Threads:
        """Start this many threads for rows; 0 runs everything in the caller. They end with the last reference."""
        if not threads:
            return cls(InCaller(), InCaller())
        return cls(
            rows=ThreadPoolExecutor(threads, thread_name_prefix=_THREADS, initializer=compute_alone),
            batches=ThreadPoolExecutor(1, thread_name_prefix=f"{_THREADS}-batch"),
        )


def yield_from_threads(
    maker: BatchMaker[RequestT, DraftT, HostT], wanted: Iterable[BatchPlan], threads: Threads, prefetch: int
) -> Generator[Made[HostT]]:
    """Yield the host batches of the plans in order; threads of this process create them `prefetch` batches ahead.

    The ranges of the `AHEAD` batches after those are announced. No work is left in the threads when it ends.
    """
    began = os.getpid()
    plans_left, soon = iter(wanted), deque[tuple[BatchPlan, Announced[RequestT] | None]]()
    begun: deque[tuple[Begun[DraftT], Future[Made[HostT]]]] = deque()
    # Drawing next to a thread that fills small rows makes both wait for the interpreter lock repeatedly.
    before = maker.sampler.together > 1

    def draw(most: int) -> None:
        while len(soon) < most and (plan := next(plans_left, None)) is not None:
            soon.append((plan, maker.draw_ahead(plan)))

    try:
        while True:
            if before:
                draw(AHEAD + prefetch - len(begun))
            while len(begun) < prefetch:
                plan, drawn = soon.popleft() if soon else (next(plans_left, None), None)
                if plan is None:
                    break
                begun.append(maker.begin(threads, plan, drawn))
            draw(AHEAD)
            if not begun:
                return
            if (error := begun[0][1].exception()) is not None:
                raise error  # its other rows are awaited below
            yield begun.popleft()[1].result()
    finally:
        if os.getpid() == began:  # a fork has none of the threads, and would wait for them indefinitely
            for _, drawn in soon:
                if drawn is not None:
                    drawn.announced.drop()
            for batch, joined in begun:
                batch.cancel()
                joined.cancel()
            # Garbage collection may run in any thread, and one of these threads would wait for itself.
            if not threading.current_thread().name.startswith(_THREADS):
                wait([rows for batch, _ in begun for rows in batch.rows])
                wait([joined for _, joined in begun])
