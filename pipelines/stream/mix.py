"""Several datasets in one stream of batches, by weight.

With the weights 3 and 1, of every 4 samples of the stream (over all ranks) 3 come from the first dataset; the samples
of each batch are then shuffled. The number of samples drawn from each dataset before batch b is therefore a function
of b alone: the position is (epoch, batch), as with one dataset, and a mixture keeps the guarantees of a loader (any
topology, exact resume, replacement of unusable samples).

Each dataset has its own epochs: every sample comes once, with the crops and masks of that epoch, before any sample
comes again. A mixture is itself a source, so mixtures can be nested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from maskstream.shards.stores.base import Announcement, Range

from .order import ORDER_VERSION, GlobalBatch, Int64Array
from .rng import sample_rng
from .sampler import BatchSource, BatchT, DraftT, HostT, HostT_co, RequestT, Sampler, Wanted, check_source
from .samples import Samples, Stream
from .stats import Stats


def mix(
    parts: Sequence[tuple[BatchSource[RequestT, DraftT, HostT, BatchT], int]],
    *,
    seed: int = 0,
    batches: int | None = None,
) -> BatchSource[MixRequest[RequestT], DraftT, HostT, BatchT]:
    """A source that mixes sources of one modality by weight: `Loader(mix([(kinetics, 3), (ssv2, 1)]), batch_size=32)`.

    batches: the length of an epoch of the mixture; by default the samples of all parts divided by the global batch.

    Errors: ValueError for weights that are not positive whole numbers, for sources whose samples cannot share a batch,
    and for sources that are no endless stream (shuffle=False or lanes > 1).
    """
    if not parts:
        raise ValueError("mix() of nothing: pass at least one (source, weight) pair")
    if wrong := [part for part in parts if not isinstance(part, Sequence) or len(part) != 2]:
        raise ValueError(
            f"mix() takes (source, weight) pairs, such as [(kinetics, 3), (ssv2, 1)], got {repr(wrong[0])[:80]}"
        )
    sources = [source for source, _ in parts]
    for source in sources:
        check_source(source, "mix() takes")
    first = sources[0]
    _check_alike(sources)
    samples = MixSamples(
        parts=tuple(source.samples for source in sources),
        weights=tuple(weight for _, weight in parts),
        seed=seed,
        length=batches,
    )
    sampler = MixSampler(samplers=tuple(source.sampler for source in sources), starts=samples.starts, seed=seed)
    return BatchSource(
        sampler=sampler,
        finish=first.finish,
        samples=samples,
        identity={"sources": [source.identity for source in sources]},
        visible=first.visible,
        form=first.form,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSamples:
    """The samples of several sources, mixed by weight; `length` is the number of batches of an epoch.

    Raises ValueError for weights that are not positive whole numbers, and for parts that are no endless stream.
    """

    parts: tuple[Samples, ...]
    weights: tuple[int, ...]
    seed: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        for weight in self.weights:
            if isinstance(weight, bool) or not isinstance(weight, int) or weight < 1:
                raise ValueError(f"weights are positive whole numbers, got {weight!r}; for 0.7 and 0.3 use 7 and 3")
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

    def order(self, global_batch: int) -> MixOrder:
        """The order of batches of `global_batch` samples."""
        return MixOrder(
            parts=tuple(part.stream() for part in self.parts),
            weights=self.weights,
            global_batch=global_batch,
            seed=self.seed,
            length=self.length,
        )

    def stream(self) -> MixOrder:
        """The mixed samples one by one, without end."""
        return self.order(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class MixOrder:
    """The order of a mixture. The sample indexes of part k begin at `starts[k]`.

    parts: a stream of single samples per dataset. length: batches of an epoch; None for the samples of all parts
    divided by the global batch. starts: int64 (parts + 1,); the last entry is n_samples. cycle: int64 (sum of
    weights,), the part of each of so many consecutive samples; it repeats without end.
    """

    parts: tuple[Stream, ...]
    weights: tuple[int, ...]
    global_batch: int
    seed: int = 0
    length: int | None = None
    n_batches: int = field(init=False, repr=False, compare=False)
    starts: Int64Array = field(init=False, repr=False, compare=False)
    cycle: Int64Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = [part.n_samples for part in self.parts]
        fitting = sum(sizes) // max(self.global_batch, 1)
        object.__setattr__(self, "starts", np.cumsum([0, *sizes], dtype=np.int64))
        object.__setattr__(self, "n_batches", fitting if self.length is None else self.length)
        object.__setattr__(self, "cycle", _cycle(self.weights))
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
        rounds, rest = divmod(samples, sum(self.weights))
        return rounds * np.asarray(self.weights) + np.bincount(self.cycle[:rest], minlength=len(self.parts))

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
        return _found(self.starts, index)

    def identity(self) -> dict[str, Any]:
        """The settings that a saved position depends on, JSON-able."""
        whole = {
            "version": ORDER_VERSION,
            "seed": self.seed,
            "global_batch": self.global_batch,
            "batches": self.n_batches,
        }
        parts = [
            {"weight": weight, **{k: v for k, v in part.identity().items() if k not in ("version", "global_batch")}}
            for weight, part in zip(self.weights, self.parts, strict=True)
        ]
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
        """The samples [begin, end) of the mixture, their parts in the order of `cycle`."""
        of = np.take(self._order.cycle, np.arange(begin, end), mode="wrap")
        taken = GlobalBatch(indexes=np.empty(end - begin, np.int64), epochs=np.empty(end - begin, np.int64))
        for part, drawn in enumerate(self.by_part(begin, end)):
            taken.indexes[of == part], taken.epochs[of == part] = drawn.indexes, drawn.epochs
        return taken


def _cycle(weights: tuple[int, ...]) -> Int64Array:
    """The parts of sum(weights) consecutive samples, evenly spread: sample i of a part is due at (i + 0.5) / weight."""
    due = np.concatenate([(np.arange(w) + 0.5) / w for w in weights])
    return np.repeat(np.arange(len(weights)), weights)[np.argsort(due, kind="stable")]


def _by_part(parts: Sequence[int]) -> dict[int, list[int]]:
    """The places at which each part stands."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for place, part in enumerate(parts):
        places[part].append(place)
    return places


def _found(starts: Int64Array, index: int) -> tuple[int, int]:
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, index - int(starts[part])


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
    """Makes each row with the sampler of its part; labels are not remapped. starts: as in `MixOrder`."""

    samplers: tuple[Sampler[RequestT, DraftT, HostT_co], ...]
    starts: Int64Array
    seed: int

    @property
    def needs_progress(self) -> bool:
        """Whether the mask of any part changes over the run."""
        return any(sampler.needs_progress for sampler in self.samplers)

    @property
    def together(self) -> int:
        """As many rows as the part with the most."""
        return max(sampler.together for sampler in self.samplers)

    def requests(self, wanted: Sequence[Wanted]) -> list[MixRequest[RequestT]]:
        """The requests of the parts that hold the samples."""
        found = [_found(self.starts, one.index) for one in wanted]
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

    def join(self, draft: DraftT) -> HostT_co:
        """The host batch, made by the sampler of the first part."""
        return self.samplers[0].join(draft)


def _check_alike(sources: Sequence[BatchSource[RequestT, DraftT, HostT, BatchT]]) -> None:
    """Raises ValueError if the samples of the parts cannot share a batch."""
    one = sources[0].form
    for i, other in enumerate(source.form for source in sources):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        if differs := [f"{name}: {one.get(name)} and {other.get(name)}" for name in names]:
            raise ValueError(
                f"the parts of a mixture share batches, so these settings must agree; part {i} differs from part 0 in "
                f"{'; '.join(differs)}"
            )
