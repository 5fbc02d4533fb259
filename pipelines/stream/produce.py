"""From plans to host batches: a plan decides what a batch holds, threads fill its rows."""

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

from maskstream.shards.errors import MovedError, RemovedError, SampleError
from maskstream.shards.stores.base import UNHEEDED, Together

from .order import Int64Array, rank_share
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
"""Begins the names of the threads that make batches."""
AHEAD = 4
"""For how many batches behind those that are made the ranges are announced."""


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
    """Yields one rank's plans of an epoch from batch `first` on; with `endless`, of all later epochs too.

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
    """The stats of some rows, and per row the number of its candidates that were unusable."""

    stats: Stats
    tried: list[int]


class Tries(NamedTuple):
    """The number of a row's candidates that were unusable, and how many of these had been removed from their split."""

    unusable: int
    removed: int = 0

    def plus(self, error: SampleError) -> Tries:
        """After another unusable candidate. One that was removed is not logged; one that has moved is tried again."""
        if isinstance(error, MovedError):
            return self
        if isinstance(error, RemovedError):
            return Tries(self.unusable + 1, self.removed + 1)
        log.warning("replaced %s", error)
        return Tries(self.unusable + 1, self.removed)


class RowGroup(NamedTuple, Generic[RequestT]):
    """Rows of a batch that one thread fills.

    rows: their numbers. wanted: the samples that they shall show. request: of the first candidate of each row that is
    not known to be unusable. tries: per row, those that are.
    """

    rows: range
    wanted: Wanted
    request: RequestT
    tries: list[Tries]


class Announced(NamedTuple, Generic[RequestT]):
    """The requests of a batch, whose ranges are announced until `announced` is dropped."""

    groups: list[RowGroup[RequestT]]
    announced: Together


class Begun(NamedTuple, Generic[DraftT]):
    """A batch whose rows are being filled; the ranges of its requests are announced until `announced` is dropped."""

    draft: DraftT
    rows: list[Future[Filled]]
    stats: Stats
    announced: Together

    def cancel(self) -> None:
        """Fills no further row."""
        for rows in self.rows:
            rows.cancel()
        self.announced.drop()


class Made(NamedTuple, Generic[HostT]):
    """A host batch, its stats, and per row the number of candidates that were unusable."""

    batch: HostT
    stats: Stats
    tried: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class BatchMaker(Generic[RequestT, DraftT, HostT]):
    """Makes the host batch of a plan. It holds only settings, so it can be sent to worker processes.

    starts: of a mixture, the first sample index of each part and the number of all, int64 (parts + 1,).
    """

    sampler: Sampler[RequestT, DraftT, HostT]
    order: BatchOrder
    starts: Int64Array | None = None

    def drawn(self, plan: BatchPlan, *, row_by_row: bool = False) -> Announced[RequestT]:
        """Draws the requests of a batch, and announces what they will read. row_by_row: each row is a group."""
        n, together = len(plan), 1 if row_by_row else self.sampler.together
        # A task costs as much as a small row or more, so many of these are one group.
        parts = [range(at, min(at + together, n)) for at in range(0, n, together)]
        groups = [self._group(plan, rows) for rows in parts]
        requests = (group.request for group in groups)
        announced = Together(tuple(one for one in map(self.sampler.announce, requests) if one is not UNHEEDED))
        return Announced(groups, announced)

    def draw_ahead(self, plan: BatchPlan) -> Announced[RequestT] | None:
        """The same for a batch that is started later; None for an error, which `start` will raise."""
        try:
            return self.drawn(plan)
        except Exception:
            return None

    def start(
        self, pool: Executor, plan: BatchPlan, drawn: Announced[RequestT] | None = None, *, row_by_row: bool = False
    ) -> Begun[DraftT]:
        """Draws the masks that need no content, then submits the rows to `pool`; draws the requests if need be.

        Masks are drawn for all rows before decoding starts, while their data is in the processor's cache. row_by_row:
        each row is submitted by itself, also where the sampler fills many together.
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
        """Waits for all rows; returns the host batch and its stats."""
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
        if self.starts is not None:  # a sample is replaced by one of its own part
            shown = plan.indexes if plan.packed is None else np.concatenate([row.indexes for row in plan.packed])
            parts = np.searchsorted(self.starts, shown, side="right") - 1
            batch = replace(batch, source=wrap_tensor(parts.repeat(len(batch) // max(len(shown), 1))))
        return Made(batch=batch, stats=stats, tried=tuple(tried for rows in filled for tried in rows.tried))

    def begin(
        self, threads: Threads, plan: BatchPlan, drawn: Announced[RequestT] | None
    ) -> tuple[Begun[DraftT], Future[Made[HostT]]]:
        """Starts a batch, and what joins it."""
        begun = self.start(threads.rows, plan, drawn)
        joining = threads.rows if len(begun.rows) == 1 else threads.batches
        return begun, joining.submit(self.join, plan, begun)

    def remake(self, plan: BatchPlan, made: Made[HostT], bad: Mapping[int, SampleError]) -> Made[HostT]:
        """The batch `made` anew with the next candidates in the rows `bad`; its stats are the sum of both."""
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
        """What the samples of a batch are, before a byte is read: the key of each, or why it cannot be used.

        A sample that was removed from its split is replaced, as in the batch.
        """
        reserve = self.order.reserve
        if isinstance(self.order, RowOrder | RowMixOrder):  # a row replaces its samples itself
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
        """The rows, each with its first usable candidate."""
        wanted, known = plan.part(slice(rows.start, rows.stop)), plan.tried[rows.start : rows.stop]
        if not any(known):
            with suppress(SampleError):
                return RowGroup(rows, wanted, self.sampler.request(wanted), [Tries(0)] * len(rows))
        # Each sample alone tells which are unusable; the request is drawn again with those that replace them.
        tries = map(Tries, known or [0] * len(rows))
        found = [self._find_usable(one, unusable) for one, unusable in zip(wanted.each(), tries, strict=True)]
        shown = wanted.replaced([int(one.indexes[0]) for one, _, _ in found])
        request = found[0][1] if len(found) == 1 else self.sampler.request(shown)
        return RowGroup(rows, wanted, request, [tries for _, _, tries in found])

    def _find_usable(
        self, wanted: Wanted, tries: Tries, error: SampleError | None = None
    ) -> tuple[Wanted, RequestT, Tries]:
        """A row's next usable candidate and its request, and the unusable ones before it.

        `tries` of these are known already; `error` is that of the last one.
        """
        left = candidates(wanted, self.sampler.seed, self.order.reserve)
        for candidate in islice(left, tries.unusable, None):
            try:
                return candidate, self.sampler.request(candidate), tries
            except SampleError as lacking:
                tries, error = tries.plus(lacking), lacking
        raise error or ValueError(f"all {tries.unusable} candidates of a row are unusable; a row has at most {_TRIES}")

    def _fill(self, group: RowGroup[RequestT], draft: DraftT) -> Filled:
        """Fills the rows of a group together; if a sample is unusable, each by itself, which finds it."""
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
        """Fills a row with its first usable candidate, starting with that of `request`; the number of unusable ones."""
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
                stats.bad += tries.unusable - tries.removed  # a packed row has counted its own
                return stats, tries.unusable
            with redrawn.stage("mask"):
                self.sampler.mask(request, draft, [row])


Reserve = Callable[[int, np.random.Generator], int]
"""Gives a sample in place of one, as `BatchOrder.reserve` does."""


def candidates(wanted: Wanted, seed: int, reserve: Reserve) -> Iterator[Wanted]:
    """One sample itself, then the samples that replace it in turn while each is unusable."""
    yield wanted
    index = int(wanted.indexes[0])
    rng = sample_rng(seed, int(wanted.epochs[0]), str(index), 0, "reserve")
    for _ in range(_TRIES - 1):
        index = reserve(index, rng)
        yield wanted.replaced([index])


def batch_of(sampler: Sampler[RequestT, DraftT, HostT], wanted: Wanted, stats: Stats | None = None) -> HostT:
    """The host batch of the `wanted` samples, made in this thread; raises SampleError if one is unusable."""
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
    """Leaves inference mode, which takes as long as a small row also where the caller is in none."""
    is_in_it = "torch" in sys.modules and torch.is_inference_mode_enabled()
    return torch.inference_mode(False) if is_in_it else nullcontext()


class InCaller(Executor):
    """Does what is submitted at once, in the calling thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The result of the call, or its error, as a future that is done."""
        done: Future[T] = Future()
        try:
            with _leave_inference():
                done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class Threads(NamedTuple):
    """The threads of this process that make rows, and the one that joins them to batches; a batch whose rows are one
    task is joined by the former.

    A loader keeps them over its epochs: native libraries never give back all that they take for a new thread, so
    threads for each epoch would be a leak of 2 kB an epoch.
    """

    rows: Executor
    batches: Executor

    @classmethod
    def of(cls, threads: int) -> Threads:
        """So many threads for rows, 0 for the caller alone. They end with the last reference."""
        if not threads:
            return cls(InCaller(), InCaller())
        return cls(
            rows=ThreadPoolExecutor(threads, thread_name_prefix=_THREADS, initializer=compute_alone),
            batches=ThreadPoolExecutor(1, thread_name_prefix=f"{_THREADS}-batch"),
        )


def yield_from_threads(
    maker: BatchMaker[RequestT, DraftT, HostT], wanted: Iterable[BatchPlan], threads: Threads, prefetch: int
) -> Generator[Made[HostT]]:
    """Yields the host batches of the plans in order; threads of this process make them `prefetch` batches ahead.

    What the `AHEAD` batches behind those will read is announced. When it ends, the threads have nothing left to do.
    """
    began = os.getpid()
    plans_left, soon = iter(wanted), deque[tuple[BatchPlan, Announced[RequestT] | None]]()
    begun: deque[tuple[Begun[DraftT], Future[Made[HostT]]]] = deque()
    # Drawing beside a thread that fills small rows makes both wait for the interpreter again and again.
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
                raise error  # its other rows are waited for below
            yield begun.popleft()[1].result()
    finally:
        if os.getpid() == began:  # a fork has none of the threads, and would wait for them for ever
            for _, drawn in soon:
                if drawn is not None:
                    drawn.announced.drop()
            for batch, joined in begun:
                batch.cancel()
                joined.cancel()
            # Garbage is collected in any thread: one of these would wait for itself.
            if not threading.current_thread().name.startswith(_THREADS):
                wait([rows for batch, _ in begun for rows in batch.rows])
                wait([joined for _, joined in begun])
