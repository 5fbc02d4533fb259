"""Order of a mixture: several datasets in one stream of batches, by weight.

With weights 3 and 1, 3 of every 4 samples in the stream (over all ranks) come from the first dataset; the samples of
each batch are then shuffled. Weights may follow schedules over the run, and a dataset may end after some epochs; the
counts are then integrals (see shares.py). The number of samples drawn from each dataset before batch b is therefore a
function of b alone: the position is (epoch, batch), as with one dataset, and a mixture keeps the guarantees of a loader
(any topology, exact resume, replacement of unusable samples).

Each dataset has separate epochs: every sample appears once, with the crops and masks of that epoch, before any sample
repeats. A mixture is itself a source, so mixtures can be nested. Packed rows share all of this except the unit of time
(row_mix.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from maskstream.shards.arrays import Int64s

from .order import ORDER_VERSION, GlobalBatch
from .rng import sample_rng
from .samples import BatchOrder, Samples, Stream
from .shares import Cycle, Shares
from .weights import Unit, Weight, check_weights, compute_weight_at, describe_part_identity, find_part, points_of_change


@dataclass(frozen=True, kw_only=True)
class MixSamples:
    """Samples of several sources, mixed by weight. Sample indexes of part k start at `starts[k]`.

    Raises:
        ValueError: Weights or epochs are not allowed, or a part is not an endless stream.
    """

    parts: tuple[Samples, ...]
    weights: tuple[Weight, ...]
    """Weight of each part, as in `mix`."""
    unit: Unit = "samples"
    """Unit of the weights, as in `mix`."""
    seed: int = 0
    length: int | None = None
    """Batches per epoch; None for as many as all samples of all parts fill."""
    epochs: tuple[float | None, ...] | None = None
    """Maximum epochs of each part, as in `mix`."""

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise ValueError(f"batches={self.length} is too low: an epoch needs at least one batch")
        check_weights(self.weights, self.epochs, self.sizes)
        _ = self.streams

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """Endless stream of each part."""
        return tuple(part.stream() for part in self.parts)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of samples of each part."""
        return tuple(part.n_samples for part in self.parts)

    @property
    def n_samples(self) -> int:
        """Number of samples of all parts."""
        return sum(self.sizes)

    @property
    def shuffle(self) -> bool:
        """Always true for a mixture."""
        return True

    @cached_property
    def starts(self) -> Int64s:
        """First sample index of each part, int64 (parts + 1,); the last entry is n_samples."""
        return np.cumsum([0, *self.sizes], dtype=np.int64)

    @property
    def limits(self) -> tuple[int | None, ...]:
        """Maximum number of samples of each part; None for no limit."""
        each = self.epochs or [None] * len(self.sizes)
        return tuple(None if most is None else round(most * size) for most, size in zip(each, self.sizes, strict=True))

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """Progress values at which weights bend or jump; None if all are constant."""
        return points_of_change(self.weights)

    def costs(self, progress: float) -> Sequence[float]:
        """Return the time units that a sample of each part takes."""
        return [1.0] * len(self.parts)

    def rates(self, progress: float, alive: Sequence[bool]) -> list[float]:
        """Return the samples per time unit of each part; 0 for exhausted parts."""
        costs = self.costs(progress)
        weights = [
            compute_weight_at(weight, size, progress) if lives else 0.0
            for weight, size, lives in zip(self.weights, self.sizes, alive, strict=True)
        ]
        # A weight is a fraction of tokens, but parts are drawn by samples: divide by the tokens of one sample.
        if self.unit == "tokens":
            weights = [weight / cost for weight, cost in zip(weights, costs, strict=True)]
        whole = sum(weight * cost for weight, cost in zip(weights, costs, strict=True))
        return [weight / whole for weight in weights] if whole > 0 else weights

    def order(self, global_batch: int, steps: int | None = None) -> BatchOrder:
        """Return the order of batches of `global_batch` samples, in a run of `steps` batches."""
        return MixOrder(samples=self, global_batch=global_batch, steps=steps)

    def stream(self, samples: int | None = None) -> Stream:
        """Return the endless stream of single mixed samples, in a run of this many samples."""
        return MixOrder(samples=self, global_batch=1, steps=samples)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """Return a random sample of the same part, to replace the unusable sample `index`."""
        part, own = find_part(self.starts, index)
        return int(self.starts[part]) + self.streams[part].reserve(own, rng)

    def identity(self) -> dict[str, Any]:
        """JSON-able settings that a saved position depends on."""
        epochs = self.epochs or [None] * len(self.parts)
        parts = [describe_part_identity(*part) for part in zip(self.weights, epochs, self.streams, strict=True)]
        return {"version": ORDER_VERSION, "seed": self.seed, "parts": parts}

    def positions(self, taken: Sequence[int]) -> list[dict[str, int]]:
        """Return each part's epoch, and its number of samples within that epoch, after `taken` of its samples have been
        drawn.
        """
        each = [divmod(n, size) for n, size in zip(taken, self.sizes, strict=True)]
        return [{"epoch": epoch, "sample": sample} for epoch, sample in each]


@dataclass(frozen=True, kw_only=True)
class MixOrder:
    """Order of a mixture in batches of `global_batch` samples."""

    samples: MixSamples
    global_batch: int
    steps: int | None = None
    """Length of the run in batches, required by schedules."""

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.n_batches < 1:
            raise ValueError(
                f"a mixture of {self.n_samples} samples with a global batch of {self.global_batch}: an epoch needs at "
                "least one batch, and a batch at least one sample"
            )
        if self.steps is not None or self.samples.points_of_change is None:
            _ = self.shares  # this refuses weights that are out of range

    @property
    def shuffle(self) -> bool:
        """Always true for a mixture."""
        return True

    @property
    def n_samples(self) -> int:
        """Number of samples of all parts."""
        return self.samples.n_samples

    @property
    def n_batches(self) -> int:
        """Batches per epoch."""
        fitting, length = self.n_samples // self.global_batch, self.samples.length
        return fitting if length is None else length

    @cached_property
    def shares(self) -> Cycle | Shares:
        """Number of samples from each part.

        Raises:
            ValueError: The length of the run is required but unknown.
        """
        self.check_steps()
        mixed, numbers = self.samples, [weight for weight in self.samples.weights if isinstance(weight, int)]
        # Constant integer weights repeat in a short cycle, which needs no integral.
        if len(numbers) == len(mixed.weights) and not any(mixed.limits):
            return Cycle(tuple(numbers))
        return Shares(rates=mixed.rates, points=mixed.points_of_change, length=self._run, limits=mixed.limits)

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """Stream of each part. For a nested mixture, its run is the part of this run that it contributes."""
        if self._run is None or not any(isinstance(part, MixSamples) for part in self.samples.parts):
            return self.samples.streams
        runs = self.shares.counts(self._run).tolist()
        return tuple(part.stream(run) for part, run in zip(self.samples.parts, runs, strict=True))

    def check_steps(self) -> None:
        """Raise ValueError if the length of the run is required but unknown."""
        if self.samples.points_of_change is not None and self.steps is None:
            raise ValueError(
                "weights, sizes or ratios of a mixture change over the run, so the loader must know the run's length: "
                "pass steps=, its number of batches"
            )

    def taken(self, samples: int) -> Int64s:
        """Return how many of the stream's first `samples` samples come from each part, int64 (parts,)."""
        return self.shares.counts(samples)

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """Yield the global batches of an epoch of the mixture, from number `first` on."""
        # The counts of each part up to a batch are known, so no batch depends on the ones before it. The shuffle within
        # a batch has its own generator for the same reason.
        reader = MixReader(self)
        for step in range(epoch * self.n_batches + first, (epoch + 1) * self.n_batches):
            drawn = reader.group_by_part(step * self.global_batch, (step + 1) * self.global_batch)
            yield shuffled(drawn, sample_rng(self.samples.seed, 0, f"batch {step}", 0, "mix"))[0]

    def reader(self) -> MixReader:
        """Return a reader of the mixed samples."""
        return MixReader(self)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """Return a random sample of the same part, to replace the unusable sample `index`."""
        return self.samples.reserve(index, rng)

    def identity(self) -> dict[str, Any]:
        """JSON-able settings that a saved position depends on."""
        return {**self.samples.identity(), "global_batch": self.global_batch, "batches": self.n_batches}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """Return the position before batch `batch`; "positions" holds each part's epoch and number of samples drawn in
        it.
        """
        taken = self.taken((epoch * self.n_batches + batch) * self.global_batch).tolist()
        return {"epoch": epoch, "batch": batch, "positions": self.samples.positions(taken)}

    @property
    def _run(self) -> int | None:
        """Number of samples in the run."""
        return None if self.steps is None else self.steps * self.global_batch


class MixReader:
    """Reader of the samples of a mixture; each part has its own epochs."""

    def __init__(self, order: MixOrder) -> None:
        self._order, self._starts = order, order.samples.starts[:-1].tolist()
        self._readers = [stream.reader() for stream in order.streams]

    def between(self, begins: Sequence[int], ends: Sequence[int]) -> list[GlobalBatch]:
        """Return samples [begin, end) of each part."""
        bounds = zip(begins, ends, strict=True)
        drawn = [reader.take(*own) for reader, own in zip(self._readers, bounds, strict=True)]
        return [
            GlobalBatch(indexes=part.indexes + start, epochs=part.epochs)
            for part, start in zip(drawn, self._starts, strict=True)
        ]

    def group_by_part(self, begin: int, end: int) -> list[GlobalBatch]:
        """Return samples [begin, end) of the mixture, grouped by part."""
        return self.between(self._order.taken(begin).tolist(), self._order.taken(end).tolist())

    def take(self, begin: int, end: int) -> GlobalBatch:
        """Return samples [begin, end) of the mixture, interleaved in the order in which they are due."""
        of = self._order.shares.parts(begin, end)
        taken = GlobalBatch(indexes=np.empty(end - begin, np.int64), epochs=np.empty(end - begin, np.int64))
        for part, drawn in enumerate(self.group_by_part(begin, end)):
            taken.indexes[of == part], taken.epochs[of == part] = drawn.indexes, drawn.epochs
        return taken


def shuffled(drawn: Sequence[GlobalBatch], rng: np.random.Generator) -> tuple[GlobalBatch, Int64s]:
    """Shuffle the samples of all parts; returns them and the permutation, int64 (n,)."""
    indexes, epochs = (np.concatenate([getattr(part, name) for part in drawn]) for name in ("indexes", "epochs"))
    order = rng.permutation(len(indexes))
    return GlobalBatch(indexes=indexes[order], epochs=epochs[order]), order
