"""The order of a mixture: several datasets in one stream of batches, by weight.

With the weights 3 and 1, of every 4 samples of the stream (over all ranks) 3 come from the first dataset; the samples
of each batch are then shuffled. Weights may follow schedules over the run, and a dataset may end after some epochs; the
counts are then integrals (see shares.py). The number of samples drawn from each dataset before batch b is therefore a
function of b alone: the position is (epoch, batch), as with one dataset, and a mixture keeps the guarantees of a loader
(any topology, exact resume, replacement of unusable samples).

Each dataset has its own epochs: every sample comes once, with the crops and masks of that epoch, before any sample
comes again. A mixture is itself a source, so mixtures can be nested. Packed rows share all of it but what a unit of
time is (row_mix.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .order import ORDER_VERSION, GlobalBatch, Int64Array
from .rng import sample_rng
from .samples import BatchOrder, Samples, Stream
from .shares import Cycle, Shares
from .weights import Unit, Weight, check_weights, compute_weight_at, describe_part_identity, find_part, points_of_change


@dataclass(frozen=True, kw_only=True)
class MixSamples:
    """The samples of several sources by weight. The sample indexes of part k begin at `starts[k]`.

    weights, epochs, unit: as of `mix`. length: the batches of an epoch; None for as many as all samples of all parts
    fill. ValueError for weights and epochs that are not legal, and for parts that are no endless stream.
    """

    parts: tuple[Samples, ...]
    weights: tuple[Weight, ...]
    unit: Unit = "samples"
    seed: int = 0
    length: int | None = None
    epochs: tuple[float | None, ...] | None = None

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise ValueError(f"batches={self.length}: an epoch needs at least one batch")
        check_weights(self.weights, self.epochs, self.sizes)
        _ = self.streams

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """The endless stream of each part."""
        return tuple(part.stream() for part in self.parts)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of samples of each part."""
        return tuple(part.n_samples for part in self.parts)

    @property
    def n_samples(self) -> int:
        """The number of samples of all parts."""
        return sum(self.sizes)

    @property
    def shuffle(self) -> bool:
        """A mixture is always shuffled."""
        return True

    @cached_property
    def starts(self) -> Int64Array:
        """The first sample index of each part, int64 (parts + 1,); the last entry is n_samples."""
        return np.cumsum([0, *self.sizes], dtype=np.int64)

    @property
    def limits(self) -> tuple[int | None, ...]:
        """The samples that each part gives at most, None for any number."""
        each = self.epochs or [None] * len(self.sizes)
        return tuple(None if most is None else round(most * size) for most, size in zip(each, self.sizes, strict=True))

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """The progress at which weights turn or jump, None where none changes."""
        return points_of_change(self.weights)

    def costs(self, progress: float) -> Sequence[float]:
        """What a sample of each part takes of a unit of time."""
        return [1.0] * len(self.parts)

    def rates(self, progress: float, alive: Sequence[bool]) -> list[float]:
        """The samples that each part gives in a unit of time at a progress; 0 for those that are not alive."""
        costs = self.costs(progress)
        weights = [
            compute_weight_at(weight, size, progress) if lives else 0.0
            for weight, size, lives in zip(self.weights, self.sizes, alive, strict=True)
        ]
        if self.unit == "tokens":
            weights = [weight / cost for weight, cost in zip(weights, costs, strict=True)]
        whole = sum(weight * cost for weight, cost in zip(weights, costs, strict=True))
        return [weight / whole for weight in weights] if whole > 0 else weights

    def order(self, global_batch: int, steps: int | None = None) -> BatchOrder:
        """The order of batches of `global_batch` samples, in a run of `steps` batches."""
        return MixOrder(samples=self, global_batch=global_batch, steps=steps)

    def stream(self, samples: int | None = None) -> Stream:
        """The mixed samples one by one, without end, in a run of so many samples."""
        return MixOrder(samples=self, global_batch=1, steps=samples)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A random sample of the same part, to replace the unusable sample `index`."""
        part, own = find_part(self.starts, index)
        return int(self.starts[part]) + self.streams[part].reserve(own, rng)

    def identity(self) -> dict[str, Any]:
        """The settings that a saved position depends on, JSON-able."""
        epochs = self.epochs or [None] * len(self.parts)
        parts = [describe_part_identity(*part) for part in zip(self.weights, epochs, self.streams, strict=True)]
        return {"version": ORDER_VERSION, "seed": self.seed, "parts": parts}

    def positions(self, taken: Sequence[int]) -> list[dict[str, int]]:
        """Where each part is that has given so many samples: its epoch, and the samples of that epoch."""
        each = [divmod(n, size) for n, size in zip(taken, self.sizes, strict=True)]
        return [{"epoch": epoch, "sample": sample} for epoch, sample in each]


@dataclass(frozen=True, kw_only=True)
class MixOrder:
    """The order of a mixture in batches of `global_batch`. steps: the batches of the run, which schedules need."""

    samples: MixSamples
    global_batch: int
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.n_batches < 1:
            raise ValueError(
                f"a mixture of {self.n_samples} samples with a global batch of {self.global_batch}: an epoch needs at "
                "least one batch, and a batch at least one sample"
            )
        if self.steps is not None or self.samples.points_of_change is None:
            _ = self.shares  # which refuses weights that are out of range

    @property
    def shuffle(self) -> bool:
        """A mixture is always shuffled."""
        return True

    @property
    def n_samples(self) -> int:
        """The number of samples of all parts."""
        return self.samples.n_samples

    @property
    def n_batches(self) -> int:
        """The batches of an epoch."""
        fitting, length = self.n_samples // self.global_batch, self.samples.length
        return fitting if length is None else length

    @cached_property
    def shares(self) -> Cycle | Shares:
        """How many samples come from each part; ValueError where that needs the length of the run."""
        self.check_steps()
        mixed, numbers = self.samples, [weight for weight in self.samples.weights if isinstance(weight, int)]
        if len(numbers) == len(mixed.weights) and not any(mixed.limits):
            return Cycle(tuple(numbers))
        return Shares(rates=mixed.rates, points=mixed.points_of_change, length=self._run, limits=mixed.limits)

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """The stream of each part, where what it gives of the run is the run of a mixture inside."""
        if self._run is None or not any(isinstance(part, MixSamples) for part in self.samples.parts):
            return self.samples.streams
        runs = self.shares.counts(self._run).tolist()
        return tuple(part.stream(run) for part, run in zip(self.samples.parts, runs, strict=True))

    def check_steps(self) -> None:
        """ValueError where the length of the run is needed and not known."""
        if self.samples.points_of_change is not None and self.steps is None:
            raise ValueError(
                "weights, sizes or ratios of a mixture change over the run, so the loader must know the run's length: "
                "pass steps=, its number of batches"
            )

    def taken(self, samples: int) -> Int64Array:
        """How many of the stream's first `samples` samples come from each part, int64 (parts,)."""
        return self.shares.counts(samples)

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The global batches of an epoch of the mixture, from number `first` on."""
        reader = MixReader(self)
        for step in range(epoch * self.n_batches + first, (epoch + 1) * self.n_batches):
            drawn = reader.group_by_part(step * self.global_batch, (step + 1) * self.global_batch)
            yield shuffled(drawn, sample_rng(self.samples.seed, 0, f"batch {step}", 0, "mix"))[0]

    def reader(self) -> MixReader:
        """A reader of the mixed samples."""
        return MixReader(self)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A random sample of the same part, to replace the unusable sample `index`."""
        return self.samples.reserve(index, rng)

    def identity(self) -> dict[str, Any]:
        """The settings that a saved position depends on, JSON-able."""
        return {**self.samples.identity(), "global_batch": self.global_batch, "batches": self.n_batches}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The position before batch `batch`; "positions" holds each part's epoch and number of samples drawn in it."""
        taken = self.taken((epoch * self.n_batches + batch) * self.global_batch).tolist()
        return {"epoch": epoch, "batch": batch, "positions": self.samples.positions(taken)}

    @property
    def _run(self) -> int | None:
        """The samples of the run."""
        return None if self.steps is None else self.steps * self.global_batch


class MixReader:
    """Reads the samples of a mixture; each part has its own epochs."""

    def __init__(self, order: MixOrder) -> None:
        self._order, self._starts = order, order.samples.starts[:-1].tolist()
        self._readers = [stream.reader() for stream in order.streams]

    def between(self, begins: Sequence[int], ends: Sequence[int]) -> list[GlobalBatch]:
        """The samples [begin, end) of each part."""
        bounds = zip(begins, ends, strict=True)
        drawn = [reader.take(*own) for reader, own in zip(self._readers, bounds, strict=True)]
        return [
            GlobalBatch(indexes=part.indexes + start, epochs=part.epochs)
            for part, start in zip(drawn, self._starts, strict=True)
        ]

    def group_by_part(self, begin: int, end: int) -> list[GlobalBatch]:
        """The samples [begin, end) of the mixture, grouped by part."""
        return self.between(self._order.taken(begin).tolist(), self._order.taken(end).tolist())

    def take(self, begin: int, end: int) -> GlobalBatch:
        """The samples [begin, end) of the mixture, in the order in which those of each part are due."""
        of = self._order.shares.parts(begin, end)
        taken = GlobalBatch(indexes=np.empty(end - begin, np.int64), epochs=np.empty(end - begin, np.int64))
        for part, drawn in enumerate(self.group_by_part(begin, end)):
            taken.indexes[of == part], taken.epochs[of == part] = drawn.indexes, drawn.epochs
        return taken


def shuffled(drawn: Sequence[GlobalBatch], rng: np.random.Generator) -> tuple[GlobalBatch, Int64Array]:
    """The samples of all parts in a random order, and that order, int64 (n,)."""
    indexes, epochs = (np.concatenate([getattr(part, name) for part in drawn]) for name in ("indexes", "epochs"))
    order = rng.permutation(len(indexes))
    return GlobalBatch(indexes=indexes[order], epochs=epochs[order]), order
