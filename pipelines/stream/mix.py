"""Several datasets in one stream of batches, by weight.

With the weights 3 and 1, of every 4 samples of the stream (over all ranks) 3 come from the first dataset; the samples
of each batch are then shuffled. Weights may follow schedules over the run, and a dataset may end after some epochs; the
counts are then integrals (see shares.py). The number of samples drawn from each dataset before batch b is therefore a
function of b alone: the position is (epoch, batch), as with one dataset, and a mixture keeps the guarantees of a loader
(any topology, exact resume, replacement of unusable samples).

Each dataset has its own epochs: every sample comes once, with the crops and masks of that epoch, before any sample
comes again. A mixture is itself a source, so mixtures can be nested.

How samples of several sources become batches is the sources' own: as rows of one batch (`join_samples`), or as samples
of packed rows (row_mix.py).
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, Unpack, overload

import numpy as np

from maskstream.shards.format.manifest import Manifest, join_label_names
from maskstream.shards.stores.base import Announcement, Range

from .loader import Loader, LoaderSettings
from .order import ORDER_VERSION, GlobalBatch, Int64Array
from .rng import sample_rng
from .sampler import (
    BatchPlan,
    BatchSource,
    BatchT,
    DraftT,
    HostT,
    HostT_co,
    RequestT,
    Sampler,
    Wanted,
    WholeSampler,
    check_alike,
    check_source,
)
from .samples import Samples, Stream
from .shares import Cycle, Shares
from .stats import Stats
from .weights import (
    MixOptions,
    Weight,
    check_weights,
    find_part,
    most_samples,
    part_identity,
    points_of_change,
    weight_at,
)


@overload
def mix(
    parts: Sequence[tuple[Loader[BatchT], Weight]], *, seed: int = 0, **options: Unpack[MixOptions]
) -> Loader[BatchT]: ...
@overload
def mix(
    parts: Sequence[tuple[BatchSource[RequestT, DraftT, HostT, BatchT], Weight]],
    *,
    seed: int = 0,
    **options: Unpack[MixOptions],
) -> BatchSource[Any, DraftT, HostT, BatchT]: ...
def mix(parts: Sequence[tuple[Any, Weight]], *, seed: int = 0, **options: Unpack[MixOptions]) -> Any:
    """Mix loaders, or the sources of loaders, by weight: `mix([(video_loader(A), 3), (video_loader(B), 1)])`.

    Packed rows share rows, all others batches. A weight is a number above 0, a schedule over the run, such as
    `masks.Linear(start=0.2, end=0.8)`, or `BySize`. With a schedule the loader needs `steps`. A mixture can be a part,
    except of packed rows; schedules inside it begin with its own first sample of the run and end with its last.

    Labels are numbered by one table, in which the names of all parts stand: those of the first part, then those that
    only the second has, and so on. So a number is the same class in all parts (`Loader.label_names`).

    Args:
        parts: (loader, weight) pairs, such as [(kinetics, 3), (ssv2, 1)]. Loaders must have the same options.
        seed: Random seed of the mixture: which samples share a batch is the same at any number of ranks.
        options: unit, batches and epochs; see `MixOptions`.

    Returns:
        A loader with the options of the parts, or of sources a source: `Loader(mix(sources), batch_size=32)`.

    Raises:
        ValueError: Weights or epochs are not allowed, or parts cannot share batches: their settings differ, or they
            are not endless streams (shuffle=False or lanes > 1).
    """
    check_pairs(parts, "loader")
    given = [part for part, _ in parts]
    loaders = [part for part in given if isinstance(part, Loader)]
    if not loaders:
        return _mix(parts, seed, options)
    if len(loaders) < len(given):
        raise ValueError("mix() takes loaders, or sources, and got both; open all folders with loaders")
    first = LoaderSettings(**loaders[0].options)
    for number, loader in enumerate(loaders):
        own = LoaderSettings(**loader.options)
        for name in LoaderSettings.__dataclass_fields__:
            if (one := getattr(first, name)) != (other := getattr(own, name)):
                raise ValueError(
                    f"the loaders of a mixture make batches together, but loader 0 has {name}={one!r} and loader "
                    f"{number} {name}={other!r}; give all the same"
                )
    sources = [(loader.source, weight) for loader, (_, weight) in zip(loaders, parts, strict=True)]
    return Loader(_mix(sources, seed, options), **loaders[0].options)


def mix_rows(parts: Sequence[tuple[Any, Weight]], *, seed: int = 0, **options: Unpack[MixOptions]) -> Any:
    """The former name of `mix` for packed rows."""
    warnings.warn("mix_rows() is deprecated; use mix(), which takes packed rows, too", DeprecationWarning, stacklevel=2)
    return mix(parts, seed=seed, **options)


def check_pairs(parts: Sequence[tuple[object, Weight]], what: str) -> None:
    """ValueError unless the parts of a mixture are pairs with a weight; what: the first of each, in a word."""
    if not parts:
        raise ValueError(f"a mixture of nothing: pass at least one ({what}, weight) pair")
    if wrong := [part for part in parts if not isinstance(part, tuple | list) or len(part) != 2]:
        raise ValueError(f"a mixture is ({what}, weight) pairs, such as [(A, 3), (B, 1)], got {repr(wrong[0])[:80]}")


def _mix(
    parts: Sequence[tuple[BatchSource[Any, Any, Any, BatchT], Weight]], seed: int, options: MixOptions
) -> BatchSource[Any, Any, Any, BatchT]:
    sources = [source for source, _ in parts]
    for source in sources:
        check_source(source, "mix() takes loaders or")
    check_alike([source.form for source in sources])
    join = sources[0].join or join_samples
    sampler, samples = join(sources, [weight for _, weight in parts], seed, options)
    return replace(
        sources[0],
        sampler=sampler.with_labels(join_label_names(sampler.splits)),
        samples=samples,
        identity={"sources": [source.identity for source in sources]},
        sizes=tuple(source.samples.n_samples for source in sources) if len(sources) > 1 else (),
    )


def join_samples(
    sources: Sequence[BatchSource[Any, Any, Any, Any]], weights: Sequence[Weight], seed: int, options: MixOptions
) -> tuple[MixSampler[Any, Any, Any], MixSamples]:
    """The samples of several sources in the same batches, each a row of one source."""
    if (unit := options.get("unit", "samples")) != "samples":
        raise ValueError(f"unit={unit!r}: samples are mixed here; only packed rows count tokens")
    epochs = options.get("epochs")
    samples = MixSamples(
        parts=tuple(source.samples for source in sources),
        weights=tuple(weights),
        seed=seed,
        length=options.get("batches"),
        epochs=None if epochs is None else tuple(epochs),
    )
    sampler = MixSampler(
        samplers=tuple(source.sampler for source in sources),
        starts=samples.starts,
        seed=seed,
        changes=points_of_change(samples.weights) is not None,
    )
    return sampler, samples


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSamples:
    """The samples of several sources, mixed by weight; `length` is the number of batches of an epoch.

    Raises ValueError for weights and epochs that are not legal, and for parts that are no endless stream.
    """

    parts: tuple[Samples, ...]
    weights: tuple[Weight, ...]
    seed: int = 0
    length: int | None = None
    epochs: tuple[float | None, ...] | None = None

    def __post_init__(self) -> None:
        check_weights(self.weights, self.epochs, [part.n_samples for part in self.parts])
        for part in self.parts:
            part.stream()

    @property
    def n_samples(self) -> int:
        """The number of samples of all parts."""
        return sum(part.n_samples for part in self.parts)

    @property
    def shuffle(self) -> bool:
        """A mixture is always shuffled."""
        return True

    @property
    def starts(self) -> Int64Array:
        """The first sample index of each part, int64 (parts + 1,); the last entry is n_samples."""
        return np.cumsum([0, *(part.n_samples for part in self.parts)], dtype=np.int64)

    def order(self, global_batch: int, steps: int | None = None) -> MixOrder:
        """The order of batches of `global_batch` samples, in a run of `steps` batches."""
        return self._order(global_batch, None if steps is None else steps * global_batch)

    def stream(self, samples: int | None = None) -> MixOrder:
        """The mixed samples one by one, without end, in a run of so many samples."""
        return self._order(1, samples)

    def _order(self, global_batch: int, samples: int | None) -> MixOrder:
        runs: list[int | None] = [None] * len(self.parts)
        if samples is not None and any(isinstance(part, MixSamples) for part in self.parts):
            # What each part gives of the run says how long the run of a mixture inside is.
            shares = divided(self.weights, self.epochs, [part.n_samples for part in self.parts], samples)
            runs = runs if shares is None else shares.counts(samples).tolist()
        return MixOrder(
            parts=tuple(part.stream(run) for part, run in zip(self.parts, runs, strict=True)),
            weights=self.weights,
            global_batch=global_batch,
            seed=self.seed,
            length=self.length,
            epochs=self.epochs,
            run=samples,
        )


@dataclass(frozen=True, slots=True)
class Proportions:
    """The rates of parts of `sizes` samples: their weights as shares of one sample."""

    weights: tuple[Weight, ...]
    sizes: tuple[int, ...]

    def __call__(self, progress: float, alive: Sequence[bool]) -> list[float]:
        """The share of each part at a progress; 0 for those that are not alive."""
        values = [
            weight_at(weight, size, progress) if lives else 0.0
            for weight, size, lives in zip(self.weights, self.sizes, alive, strict=True)
        ]
        whole = sum(values)
        return [value / whole for value in values] if whole > 0 else values


def divided(
    weights: tuple[Weight, ...], epochs: Sequence[float | None] | None, sizes: Sequence[int], run: int | None
) -> Cycle | Shares | None:
    """How a stream is divided among parts of `sizes` samples; None if that changes over a run of unknown length."""
    if (points := points_of_change(weights)) is not None and run is None:
        return None
    numbers = [weight for weight in weights if isinstance(weight, int)]
    if len(numbers) == len(weights) and (epochs is None or not any(epochs)):
        return Cycle(tuple(numbers))
    rates = Proportions(weights, tuple(sizes))
    return Shares(rates=rates, points=points, length=run, limits=most_samples(epochs, sizes))


@dataclass(frozen=True, kw_only=True, slots=True)
class MixOrder:
    """The order of a mixture. The sample indexes of part k begin at `starts[k]`.

    parts: a stream of single samples per dataset. length: batches of an epoch; None for the samples of all parts
    divided by the global batch. epochs: as in `mix`. run: the samples of the run, which schedules need. starts: int64
    (parts + 1,); the last entry is n_samples. shares: how many samples come from each part.
    """

    parts: tuple[Stream, ...]
    weights: tuple[Weight, ...]
    global_batch: int
    seed: int = 0
    length: int | None = None
    epochs: tuple[float | None, ...] | None = None
    run: int | None = None
    n_batches: int = field(init=False, repr=False, compare=False)
    starts: Int64Array = field(init=False, repr=False, compare=False)
    _shares: Cycle | Shares | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = [part.n_samples for part in self.parts]
        fitting = sum(sizes) // max(self.global_batch, 1)
        object.__setattr__(self, "starts", np.cumsum([0, *sizes], dtype=np.int64))
        object.__setattr__(self, "n_batches", fitting if self.length is None else self.length)
        object.__setattr__(self, "_shares", divided(self.weights, self.epochs, sizes, self.run))
        if self.global_batch < 1 or self.n_batches < 1:
            raise ValueError(
                f"a mixture of {sum(sizes)} samples with a global batch of {self.global_batch} and batches="
                f"{self.length}: an epoch needs at least one batch, and a batch at least one sample"
            )

    @property
    def shuffle(self) -> bool:
        """A mixture is always shuffled."""
        return True

    @property
    def n_samples(self) -> int:
        """The number of samples of all parts."""
        return int(self.starts[-1])

    def taken(self, samples: int) -> Int64Array:
        """How many of the stream's first `samples` samples come from each part, int64 (parts,)."""
        return self.shares.counts(samples)

    @property
    def shares(self) -> Cycle | Shares:
        """How many samples come from each part; ValueError where that needs the length of the run."""
        if self._shares is None:
            raise ValueError(
                "the weights of a mixture change over the run, so the loader must know the run's length: pass "
                "steps=, its number of batches"
            )
        return self._shares

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The global batches of an epoch of the mixture, from number `first` on."""
        reader = MixReader(self)
        for step in range(epoch * self.n_batches + first, (epoch + 1) * self.n_batches):
            drawn = reader.by_part(step * self.global_batch, (step + 1) * self.global_batch)
            shuffled = sample_rng(self.seed, 0, f"batch {step}", 0, "mix").permutation(self.global_batch)
            yield GlobalBatch(
                indexes=np.concatenate([part.indexes for part in drawn])[shuffled],
                epochs=np.concatenate([part.epochs for part in drawn])[shuffled],
            )

    def reader(self) -> MixReader:
        """A reader of the mixed samples."""
        return MixReader(self)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A random sample of the same part, to replace the unusable sample `index`."""
        part, own = self.find(index)
        return int(self.starts[part]) + self.parts[part].reserve(own, rng)

    def find(self, index: int) -> tuple[int, int]:
        """The part that holds sample `index`, and the sample's index in that part."""
        return find_part(self.starts, index)

    def identity(self) -> dict[str, Any]:
        """The settings that a saved position depends on, JSON-able."""
        whole = {
            "version": ORDER_VERSION,
            "seed": self.seed,
            "global_batch": self.global_batch,
            "batches": self.n_batches,
        }
        epochs = self.epochs or [None] * len(self.parts)
        parts = [part_identity(*part) for part in zip(self.weights, epochs, self.parts, strict=True)]
        return {**whole, "parts": parts}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The position before batch `batch`; "positions" holds each part's epoch and number of samples drawn in it."""
        taken = self.taken((epoch * self.n_batches + batch) * self.global_batch).tolist()
        each = [divmod(t, part.n_samples) for t, part in zip(taken, self.parts, strict=True)]
        positions = [{"epoch": own, "sample": sample} for own, sample in each]
        return {"epoch": epoch, "batch": batch, "positions": positions}


class MixReader:
    """Reads the samples of a mixture; each part has its own epochs."""

    def __init__(self, order: MixOrder) -> None:
        self._order = order
        self._readers = [part.reader() for part in order.parts]

    def by_part(self, begin: int, end: int) -> list[GlobalBatch]:
        """The samples [begin, end) of the mixture, grouped by part."""
        order = self._order
        bounds = zip(order.taken(begin).tolist(), order.taken(end).tolist(), strict=True)
        drawn = [reader.take(*own) for reader, own in zip(self._readers, bounds, strict=True)]
        return [
            GlobalBatch(indexes=part.indexes + start, epochs=part.epochs)
            for part, start in zip(drawn, order.starts[:-1].tolist(), strict=True)
        ]

    def take(self, begin: int, end: int) -> GlobalBatch:
        """The samples [begin, end) of the mixture, in the order in which those of each part are due."""
        of = self._order.shares.parts(begin, end)
        taken = GlobalBatch(indexes=np.empty(end - begin, np.int64), epochs=np.empty(end - begin, np.int64))
        for part, drawn in enumerate(self.by_part(begin, end)):
            taken.indexes[of == part], taken.epochs[of == part] = drawn.indexes, drawn.epochs
        return taken


def _by_part(parts: Sequence[int]) -> dict[int, list[int]]:
    """The places at which each part stands."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for place, part in enumerate(parts):
        places[part].append(place)
    return places


@dataclass(frozen=True, kw_only=True, slots=True)
class MixRequest(Generic[RequestT]):
    """A request for a sample of one part."""

    part: int
    of_part: RequestT

    @property
    def key(self) -> str:
        """The key of the sample in its part."""
        return self.of_part.key

    @property
    def ranges(self) -> Sequence[Range]:
        """The byte ranges of the part's request; their names belong to the store of that part."""
        return self.of_part.ranges


def _innermost(request: Any) -> Any:
    """The request of the part that makes its row; of a mixture of mixtures each part is at its own depth."""
    while isinstance(request, MixRequest):
        request = request.of_part
    return request


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSampler(Generic[RequestT, DraftT, HostT_co]):
    """Makes each row with the sampler of its part. starts: as in `MixOrder`. changes: whether a weight changes over the
    run.
    """

    samplers: tuple[Sampler[RequestT, DraftT, HostT_co], ...]
    starts: Int64Array
    seed: int
    changes: bool = False
    _whole: tuple[WholeSampler[DraftT, HostT_co], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, for a protocol is slow to ask.
        whole = tuple(one for one in self.samplers if isinstance(one, WholeSampler) and one.at_once)
        object.__setattr__(self, "_whole", whole if len(whole) == len(self.samplers) else ())

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """The splits of all parts."""
        return tuple(split for sampler in self.samplers for split in sampler.splits)

    def with_labels(self, names: Sequence[str]) -> Self:
        """The same sampler with the labels of another table of names."""
        return replace(self, samplers=tuple(sampler.with_labels(names) for sampler in self.samplers))

    @property
    def at_once(self) -> bool:
        """Whether all parts fill many rows at once."""
        return bool(self._whole)

    @property
    def needs_progress(self) -> bool:
        """Whether a weight, or the mask of any part, changes over the run."""
        return self.changes or any(sampler.needs_progress for sampler in self.samplers)

    @property
    def needs_torch(self) -> bool:
        """Whether a part is made with torch."""
        return any(sampler.needs_torch for sampler in self.samplers)

    @property
    def together(self) -> int:
        """As many rows as the part with the most."""
        return max(sampler.together for sampler in self.samplers)

    def requests(self, wanted: Sequence[Wanted]) -> list[MixRequest[RequestT]]:
        """The requests of the parts that hold the samples."""
        found = [find_part(self.starts, one.index) for one in wanted]
        made: dict[int, MixRequest[RequestT]] = {}
        for part, rows in _by_part([part for part, _ in found]).items():
            own = [wanted[row]._replace(index=found[row][1]) for row in rows]
            for row, request in zip(rows, self.samplers[part].requests(own), strict=True):
                made[row] = MixRequest(part=part, of_part=request)
        return [made[row] for row in range(len(wanted))]

    def announce(self, request: MixRequest[RequestT]) -> Announcement:
        """Says that the ranges of a request will be read soon, to the store of its part."""
        return self.samplers[request.part].announce(request.of_part)

    def allocate(self, requests: Sequence[MixRequest[RequestT]]) -> DraftT:
        """The draft of the first part, which all parts share; of a mixture of mixtures the innermost's."""
        return self.samplers[0].allocate([_innermost(request) for request in requests])

    def mask(self, request: MixRequest[RequestT], draft: DraftT, row: int) -> None:
        """Draws the row's masks with the sampler of its part."""
        self.samplers[request.part].mask(request.of_part, draft, row)

    def fill(self, requests: Sequence[MixRequest[RequestT]], draft: DraftT, rows: Sequence[int], stats: Stats) -> None:
        """Fills the rows with the samplers of their parts."""
        for part, places in _by_part([request.part for request in requests]).items():
            of_part = [requests[place].of_part for place in places]
            self.samplers[part].fill(of_part, draft, [rows[place] for place in places], stats)

    def room(self, rows: int) -> DraftT:
        """The draft of the first part, which all parts share."""
        return self._whole[0].room(rows)

    def fill_many(self, plan: BatchPlan, draft: DraftT, rows: Int64Array, stats: Stats) -> bool:
        """Fills the rows of each part with its sampler; False where one of them cannot."""
        of = np.searchsorted(self.starts, plan.indexes, side="right") - 1
        for part, (sampler, start) in enumerate(zip(self._whole, self.starts[:-1].tolist(), strict=True)):
            own = np.flatnonzero(of == part)
            if len(own) and not sampler.fill_many(plan.part(own, start), draft, rows[own], stats):
                return False
        return True

    def join(self, draft: DraftT) -> HostT_co:
        """The host batch, made by the sampler of the first part."""
        return self.samplers[0].join(draft)
