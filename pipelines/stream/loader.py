"""The loader of all modalities: creates batches in threads or worker processes, with a position that can be saved.

A modality supplies a source, whose sampler and device transform create batches (sampler.py). The loader handles
position, ranks, workers and shutdown; produce.py determines the contents of a batch, and workers.py runs the processes.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Annotated, Any, Generic, Protocol, final

import numpy as np

from maskstream.shards.config import differences
from maskstream.shards.errors import ResumeError, SampleError
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import Bounds, NaturalInt, PositiveInt, Proportion, check_fields

from .order import ORDER_VERSION
from .produce import BatchMaker, Made, Threads, plans, yield_from_threads
from .run_length import BudgetOrder, check_budget, fit_budget
from .sampler import BatchPlan, BatchSource, BatchT, BatchT_co, DraftT, Finish, HostT, RequestT, check_source
from .samples import BatchOrder
from .stats import Stats
from .tensors import torch
from .topology import check_device, default_threads, resolve_device, resolve_ranks
from .transfer import Delivery
from .workers import TIMEOUT_S, WorkerPool

if TYPE_CHECKING:
    from .torch_dataset import BatchDataset

_LEAST_SEEN = 100  # with fewer samples, max_bad_fraction refers to this number

DATASET_VERSION = "dataset_version"
"""Version of a split in a saved position. It is not compared: versions with the same `dataset` have the same order."""

_RUNNING: weakref.WeakSet[Generator[Any]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Close unfinished iterations at exit, while the modules that their threads need are still loaded."""
    for iteration in list(_RUNNING):
        with suppress(ValueError):  # another thread is running it
            iteration.close()


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """The part of a job that a process takes, and how its batches are created. None of these settings changes the
    contents of a sample.

    Attributes:
        device: Device of the batches; "auto" is the current CUDA device, or the CPU if there is none.
        rank: Rank of this process; defaults to torch.distributed's.
        world_size: Number of ranks; defaults to torch.distributed's.
        mesh: Dimension of a device mesh along which data are divided, such as `mesh["dp"]`, instead of rank and
            world_size. Ranks with the same position in it receive the same batches, as required by the parts of one
            model.
        workers: Worker processes that create batches; with 0, threads of this process create them.
        threads: Threads per process that create samples; by default the cores, divided among the workers. 0, without
            workers, creates each batch in the calling thread on demand, and none ahead.
        prefetch: Batches created ahead, per worker if there are workers; by default 3, and 2 per worker.
        worker_timeout: Seconds without a finished sample after which a worker whose batch is awaited is replaced.
        max_bad_fraction: Largest fraction of samples that may be replaced because they are unusable.
        steps: Length of the run in batches, required by masks and weights that change over the run (see `run_steps`).
    """

    device: str | torch.device = "auto"
    rank: int | None = None
    world_size: int | None = None
    mesh: torch.distributed.device_mesh.DeviceMesh | None = None
    workers: NaturalInt = 0
    threads: NaturalInt | None = None
    prefetch: PositiveInt | None = None
    worker_timeout: Annotated[float, Bounds(above=0, note="seconds")] = TIMEOUT_S
    max_bad_fraction: Proportion = 0.01
    steps: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threads == 0 < self.workers:
            raise ValueError(
                f"threads=0: each of the {self.workers} workers needs a thread; pass threads=1, or leave threads out"
            )

    @property
    def ahead(self) -> int:
        """Number of batches that this process or each worker creates ahead; it keeps the memory of one more."""
        usual = 2 if self.workers else 3 if self.threads_each else 1
        return self.prefetch if self.prefetch is not None and self.threads_each else usual

    @property
    def threads_each(self) -> int:
        """The threads of this process, or of each worker; 0 for none but the caller's."""
        return default_threads(self.workers) if self.threads is None else self.threads


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(ProcessOptions):
    """The options of `Loader`.

    Attributes:
        batch_size: Samples per rank.
        token_budget: Maximum number of visible tokens in a batch over all ranks. The batch size then follows the mask's
            ratio, in multiples of batch_size x world_size (see `BudgetOrder`). None: every batch has batch_size samples
            per rank.
    """

    batch_size: PositiveInt = 8
    token_budget: PositiveInt | None = None


class Production(Protocol[BatchT_co]):
    """Creates the batches of plans in order; `close` ends its worker processes."""

    def batches(self, plans: Iterator[BatchPlan]) -> Generator[tuple[BatchT_co, Stats]]: ...

    def close(self) -> None: ...


class _Production(Generic[RequestT, DraftT, HostT, BatchT]):
    """Creates host batches in threads of this process or in worker processes, and finishes them here."""

    def __init__(
        self,
        maker: BatchMaker[RequestT, DraftT, HostT],
        finish: Finish[HostT, BatchT],
        device: torch.device,
        options: LoaderOptions,
    ) -> None:
        self._maker, self._options = maker, options
        self._delivery = Delivery(maker=maker, finish=finish, device=device)
        self.pool: WorkerPool[HostT] | None = None
        self._own: tuple[int, Threads] | None = None

    def batches(self, plans: Iterator[BatchPlan]) -> Generator[tuple[BatchT, Stats]]:
        """Yield the finished batches of the plans with their statistics."""
        pending: deque[BatchPlan] = deque()

        def recorded() -> Iterator[BatchPlan]:
            for plan in plans:
                pending.append(plan)
                yield plan

        with closing(self._made(recorded())) as made:
            pairs = ((pending.popleft(), one) for one in made)
            with closing(self._delivery.batches(pairs)) as delivered:
                yield from delivered

    def _made(self, plans: Iterator[BatchPlan]) -> Generator[Made[HostT]]:
        options = self._options
        if not options.workers:
            if self._own is None or self._own[0] != os.getpid():  # a fork has none of the threads
                self._own = os.getpid(), Threads.of(options.threads_each)
            return yield_from_threads(self._maker, plans, self._own[1], options.ahead)
        if self.pool is None:
            self.pool = WorkerPool(
                self._maker,
                workers=options.workers,
                threads=options.threads_each,
                prefetch=options.ahead,
                timeout_s=options.worker_timeout,
            )
        return self.pool.batches(plans)

    def close(self) -> None:
        """End the worker processes and threads."""
        self._own = None
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.close()


@final
class Loader(Generic[BatchT]):
    """The batches of one rank, one epoch per iteration, in the same order at every topology.

    Iteration starts at the current position (epoch, batch), which counts the batches handed out: after a `break` the
    next loop continues where the last one stopped, and a `state_dict()` taken at any time resumes with the next batch.
    `seek(epoch)` sets the position; `repeat()` iterates without end. Batches are created by `threads` threads of this
    process, or of each of `workers` processes, which live until the loader is deleted or closed. A process that dies or
    stops responding is replaced by another, which recreates the same batch.

    A loader has one position and therefore one iteration at a time: after `seek`, `load_state_dict` or the start of
    another loop, the earlier iteration raises RuntimeError. Too many unusable samples raise SampleError.

    A batch is a function of its number and, for masks whose ratio changes
    over the run, of `steps`; it never depends on rank, workers or threads.

    Attributes:
        options: Options of the loader.
        source_sizes: Number of samples in each part of a mixture, in the order of `batch.source`.
        label_names: Class of each number in `batch.label`, for a mixture one table of all parts; () if labels are
            numbers without names.
    """

    @takes_fields(LoaderOptions).in_method
    def __init__(self, source: BatchSource[Any, Any, Any, BatchT], options: LoaderOptions) -> None:
        """Create the loader of a source; `video_loader` and the other loaders open splits.

        Args:
            source: Source of the batches, such as `VideoData(...).source(Split.open(FOLDER, "video"))`.
            options: Options of the loader.

        Raises:
            ValueError: A value is not allowed, or does not fit the source.
        """
        check_source(source, "Loader takes")
        self.options = options
        self._source = source
        self._part: Callable[[], BatchSource[Any, Any, Any, BatchT]] | None = None
        self._rank, self.world_size = resolve_ranks(options.rank, options.world_size, options.mesh)
        self.device = resolve_device(options.device)
        self.steps = options.steps
        self.order = _order(source, int(options.batch_size) * self.world_size, self.steps, options.token_budget)
        self._identity = {
            **self.order.identity(),
            **({"steps": self.steps} if source.sampler.needs_progress else {}),
            **source.identity,
        }
        self._needs_steps = source.sampler.needs_progress and self.steps is None
        self._max_bad_fraction = options.max_bad_fraction
        self._threads = max(options.threads_each, 1) * max(options.workers, 1)
        self.label_names = source.sampler.splits[0].label_names
        self.source_sizes = source.sizes
        starts = np.cumsum([0, *source.sizes], dtype=np.int64) if source.sizes else None
        maker = BatchMaker(sampler=source.sampler, order=self.order, starts=starts)
        self._production: Production[BatchT] = _Production(maker, source.finish, self.device, options)
        self._name_samples = maker.name_samples
        self._at_version: Callable[[Mapping[str, Any]], Loader[BatchT] | None] | None = None
        self._opened_for: list[object] | None = None  # the splits of the position that another version was for
        self._epoch, self._batch = 0, 0
        self._iteration, self._process = 0, os.getpid()
        self._stats = Stats()

    @classmethod
    def of_splits(
        cls,
        source: BatchSource[Any, Any, Any, BatchT],
        options: LoaderOptions,
        *,
        at_version: Callable[[Mapping[str, Any]], Loader[BatchT] | None] | None,
        part: Callable[[], BatchSource[Any, Any, Any, BatchT]] | None = None,
    ) -> Loader[BatchT]:
        """Build the loader of splits that can be opened at other versions.

        Args:
            source: Source of the batches.
            options: Options of the loader.
            at_version: Returns the loader that a saved position needs, or None if it is this one.
            part: Returns the source as part of a mixture; by default `source`.
        """
        loader = cls(source, **vars(options))
        loader._at_version, loader._part = at_version, part
        return loader

    @property
    def source(self) -> BatchSource[Any, Any, Any, BatchT]:
        """Source of the batches, as a part of a mixture.

        Raises:
            ValueError: The loader cannot be part of a mixture.
        """
        return self._source if self._part is None else self._part()

    def __len__(self) -> int:
        """Return the number of batches per epoch, equal on every rank."""
        return self.order.n_batches

    @property
    def epoch(self) -> int:
        """Epoch of the next batch."""
        return self._epoch

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Set the position: the next batch is number `batch` of epoch `epoch`, both from 0."""
        epoch, batch = index(epoch), index(batch)
        if epoch < 0 or not 0 <= batch < max(len(self), 1):
            raise ValueError(
                f"got epoch {epoch}, batch {batch}; epochs must be at least 0 and batches 0 to {len(self) - 1}"
            )
        self._epoch, self._batch = epoch, batch
        self._iteration += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the position as JSON-able values, equal on every rank; any world size and worker count can load it."""
        return {**deepcopy(self._identity), **self.order.position(self._epoch, self._batch)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position.

        If samples were added to or curated out of the split (or splits of a mixture) since the position was saved, the
        loader switches to that earlier version and logs it, unless a version was requested explicitly.

        Raises:
            ResumeError: This loader would not create the same batches.
        """
        if not isinstance(state, Mapping) or not {"epoch", "batch"} <= state.keys():
            raise ResumeError(f"a position must be a dict returned by state_dict(), got {repr(state)[:80]}")
        theirs, own = _splits_of(state), _splits_of(self._identity)
        if theirs not in (own, self._opened_for) and (other := self.at_version(state)) is not None:
            self._turn_into(other)
            self._opened_for = theirs
        position = self.order.position(0, 0)
        saved = {name: value for name, value in state.items() if name not in position}
        if wrong := differences(_drop_versions(saved), _drop_versions(self._identity)):
            raise ResumeError(
                f"this position cannot be continued exactly ({'; '.join(wrong)}). {self._remedy(state)}, or start a "
                "new run"
            )
        self.seek(int(state["epoch"]), int(state["batch"]))

    def at_version(self, state: Mapping[str, Any]) -> Loader[BatchT] | None:
        """Return the loader for the split versions of a saved position; None if they are open already, or unknown."""
        return None if self._at_version is None or not isinstance(state, Mapping) else self._at_version(state)

    def _turn_into(self, other: Loader[BatchT]) -> None:
        """Switch to the batches of another loader, which reads another version of the split."""
        self.close()
        self.order, self._identity, self._production = other.order, other._identity, other._production
        self._name_samples, self.label_names = other._name_samples, other.label_names
        self.source_sizes = other.source_sizes

    def name_next_samples(self) -> list[str | SampleError]:
        """Return the key of each sample of the next batch, or the reason why it cannot be used, without reading data.

        A sample that was removed from its split is replaced, as in the batch. For packed rows, all samples of each row
        are returned.
        """
        return self._name_samples(next(self._plans(endless=True)))

    def stats(self) -> dict[str, object]:
        """Return counts and seconds per stage since the loader was created (see Stats), and the number of threads.

        For a mixture, "sources" is the epoch of each source at the current position, and the number of samples of that
        epoch read by all ranks.
        """
        position = {} if self._needs_steps else self.order.position(self._epoch, self._batch)
        sources = {"sources": position["positions"]} if "positions" in position else {}
        return {**self._stats.as_dict(), **sources, "threads": self._threads}

    def __iter__(self) -> Iterator[BatchT]:
        return self._begun(endless=False)

    def repeat(self) -> Iterator[BatchT]:
        """Iterate endlessly from the current position, epoch after epoch, without a pause between epochs."""
        if len(self) == 0:
            raise ValueError("repeat() needs at least one batch per epoch, but this loader has none; lower batch_size")
        return self._begun(endless=True)

    def as_dataset(self, convert: Callable[[BatchT], Any] | None = None, *, repeat: bool = False) -> BatchDataset:
        """Return the loader as an IterableDataset of batches, for `DataLoader(dataset, batch_size=None)`.

        Args:
            convert: Function applied to each batch, for example to build the arguments of a model.
            repeat: Iterate endlessly.
        """
        from .torch_dataset import BatchDataset

        return BatchDataset(self, convert, repeat)

    def close(self) -> None:
        """End the worker processes. The position is kept; iterating again starts new processes."""
        self._production.close()

    def _begun(self, *, endless: bool) -> Iterator[BatchT]:
        iteration = self._iterate(endless=endless)
        _RUNNING.add(iteration)
        return iteration

    def _iterate(self, *, endless: bool) -> Generator[BatchT]:
        self._iteration += 1
        mine, self._process = self._iteration, os.getpid()
        with closing(self._production.batches(self._plans(endless))) as batches:
            while (item := self._next(batches)) is not None:
                batch, stats = item
                self._stats.add(stats)
                self._check_bad()
                self._batch += 1
                if self._batch == len(self):
                    self._epoch, self._batch = self._epoch + 1, 0
                left = time.perf_counter()
                yield batch
                self._stats.seconds["consumer"] += time.perf_counter() - left
                if self._iteration != mine:
                    raise RuntimeError(
                        "this iteration is over: the loader was moved (seek, load_state_dict) or another "
                        "loop over it started; a loader has only one position, so create a second loader for "
                        "a second loop"
                    )

    def _plans(self, endless: bool) -> Iterator[BatchPlan]:
        """Yield the plans of the batches from the current position on."""
        check_device(self.device)
        if self._needs_steps:
            raise ValueError(
                "the mask's ratio, or a weight of the mixture, changes over the run, so the loader must know the run's "
                "length: pass steps=, its number of batches"
            )
        return plans(
            self.order, self._epoch, self._batch, self._rank, self.world_size, endless=endless, steps=self.steps
        )

    def _next(self, source: Iterator[tuple[BatchT, Stats]]) -> tuple[BatchT, Stats] | None:
        """Return the next batch, or None at the end. An error or Ctrl-C ends the worker processes."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "this iteration began in a different process, and a fork does not copy its threads; create "
                "the loader in the process that iterates over it, or pass workers="
            )
        try:
            with self._stats.stage("wait"):
                return next(source, None)
        except BaseException:
            self.close()
            raise

    def _remedy(self, state: dict[str, Any]) -> str:
        if state.get("version") != ORDER_VERSION:
            return "Use the release of maskstream that saved it"
        saved = state.get("global_batch")
        if isinstance(saved, int) and saved != self.order.global_batch:
            if saved % self.world_size:
                return _explain_indivisible(saved, self.world_size)
            return f"With {self.world_size} ranks use batch_size={saved // self.world_size}"
        if state.get("dataset") != self._identity.get("dataset") and isinstance(state.get(DATASET_VERSION), int):
            return f"Open version {state[DATASET_VERSION]} of the split that it was saved with"
        if _join_part_values(state, "pixels", 1) != _join_part_values(self._identity, "pixels", 1):
            return "This release computes pixels differently: use the release of maskstream that saved it"
        was, here = (_join_part_values(each, "backend", "cpu") for each in (state, self._identity))
        if was != here:
            where = ", which needs a CUDA device" if was == "dali" else ""
            return f"Pass backend={was!r}{where} (in a training, --set data.backend={was})"
        if state.get("balance", 1) != self._identity.get("balance", 1) and "row_tokens" in state:
            was = state.get("balance", 1)
            return f"Pass balance={was} (in a training, --set data.balance={was})"
        return "Use the same settings, dataset, seed, lanes, block, steps and batch_size x world_size"

    def _check_bad(self) -> None:
        bad, seen = self._stats.bad, self._stats.samples
        if bad > self._max_bad_fraction * max(seen, _LEAST_SEEN):
            raise SampleError(
                shard="this dataset",
                key="*",
                component="*",
                reason=f"{bad} of {max(bad, seen)} samples could not be read or decoded, more than "
                f"max_bad_fraction={self._max_bad_fraction} allows; each is logged, and `maskstream verify` checks "
                "the shards",
            )


def _splits_of(identity: Any) -> list[object]:
    """Return the splits of an identity with their versions, also within a mixture."""
    if not isinstance(identity, Mapping):
        return []
    parts = identity.get("sources")
    below = [one for part in parts for one in _splits_of(part)] if isinstance(parts, list) else []
    return [identity.get("dataset"), identity.get(DATASET_VERSION), *below]


def _drop_versions(identity: Any) -> Any:
    """Remove the versions of splits from an identity, also within a mixture."""
    if isinstance(identity, dict):
        return {name: _drop_versions(value) for name, value in identity.items() if name != DATASET_VERSION}
    return [_drop_versions(value) for value in identity] if isinstance(identity, list) else identity


def _join_part_values(identity: Mapping[str, Any], name: str, otherwise: object) -> Any:
    """Return the value of a setting in an identity, or in the first part of a mixture."""
    parts = identity.get("sources")
    if isinstance(parts, list) and parts and isinstance(parts[0], Mapping):
        return _join_part_values(parts[0], name, otherwise)
    return identity.get(name, otherwise)


def _explain_indivisible(global_batch: int, world_size: int) -> str:
    legal = [str(n) for n in range(1, global_batch + 1) if global_batch % n == 0]
    shown = ", ".join(legal if len(legal) < 12 else [*legal[:11], "..."])
    return f"A global batch of {global_batch} samples cannot be shared by {world_size} ranks evenly; use {shown} ranks"


def _order(
    source: BatchSource[RequestT, DraftT, HostT, BatchT], global_batch: int, steps: int | None, token_budget: int | None
) -> BatchOrder:
    """Create the order of the source's batches.

    Raises:
        ValueError: The token budget is impossible.
    """
    if token_budget is None:
        return source.samples.order(global_batch, steps)
    if steps is None:
        raise ValueError(
            "with a token budget, the batch size changes during the run; pass steps=, the number of batches in the run"
        )
    visible = check_budget(source)(steps)
    run = int(fit_budget(visible, token_budget, global_batch).sum())
    return BudgetOrder(
        samples=source.samples.stream(run), budget=token_budget, global_batch=global_batch, visible=visible
    )
