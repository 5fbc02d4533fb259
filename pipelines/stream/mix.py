"""Several datasets in one stream of batches, by weight.

Every batch is mixed: with the weights 3 and 1, of every 4 samples of the stream (all ranks together) 3 come from the
first dataset, and the samples of a batch are then shuffled. So how far each dataset is when batch b begins is
arithmetic, not memory: the position of the whole is (epoch, batch), as with one dataset, and what holds for a loader
(any topology, exact resume, replacement of bad samples) holds for a mixture.

Each dataset goes through epochs of its own, at its own pace: every sample of it once, with the crops and masks of that
epoch, before any comes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..modalities.video.batch import VideoBatch
from ..modalities.video.loader import VideoLoader
from ..modalities.video.sample import VideoSample, VideoSampler
from .order import ORDER_VERSION, GlobalBatch, Int64Array, Order
from .place import Place
from .rng import sample_rng


def mix(
    parts: Sequence[tuple[VideoLoader, int]],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    batches: int | None = None,
) -> VideoLoader:
    """A loader that mixes loaders by weight: `mix([(kinetics, 3), (ssv2, 1)], seed=0)`.

    The loaders say what is read and how; their positions do not count and are not moved. Ranks, workers, threads,
    device and batch_size (samples per rank) are the first one's; batch_size= changes the last. batches: the length of
    an epoch of the mixture, by default as many as the samples of all parts fill.

    Errors: ValueError for weights that are not positive whole numbers, for loaders whose samples do not fit into one
    batch, and for those that cannot be mixed (shuffle=False, lanes, backend="dali", mixtures).
    """
    if not parts:
        raise ValueError("mix() of nothing; give it (loader, weight) pairs")
    loaders = [loader for loader, _ in parts]
    first = loaders[0]
    samplers = [_video_sampler(loader) for loader in loaders]
    _check_alike(samplers)
    order = MixOrder(
        parts=tuple(_sample_by_sample(loader) for loader in loaders),
        weights=tuple(weight for _, weight in parts),
        datasets=tuple(loader.fingerprint for loader in loaders),
        global_batch=first.order.global_batch if batch_size is None else batch_size * first.world_size,
        seed=seed,
        length=batches,
    )
    mixed = first.over(MixSampler(tuple(samplers), order, seed), order, "mixture")
    mixed.grid, mixed.clip, mixed.flow = first.grid, first.clip, first.flow
    return mixed


@dataclass(frozen=True, kw_only=True, slots=True)
class MixOrder:
    """The order of a mixture. Sample indexes run through the parts in turn: part k's begin at `starts[k]`.

    parts: an order of single samples for each dataset. starts: int64 (parts + 1,); the last is the number of all
    samples. length: batches of an epoch, None for as many as the samples of all parts fill.
    """

    parts: tuple[Order, ...]
    weights: tuple[int, ...]
    datasets: tuple[str, ...]
    global_batch: int
    seed: int = 0
    length: int | None = None
    n_batches: int = field(init=False, repr=False, compare=False)
    starts: Int64Array = field(init=False, repr=False, compare=False)
    _round: Int64Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for weight in self.weights:
            if isinstance(weight, bool) or not isinstance(weight, int) or weight < 1:
                raise ValueError(f"weight {weight!r}: weights are positive whole numbers; for 0.7 and 0.3 use 7 and 3")
        sizes = [part.n_samples for part in self.parts]
        fitting = sum(sizes) // max(self.global_batch, 1)
        object.__setattr__(self, "starts", np.cumsum([0, *sizes], dtype=np.int64))
        object.__setattr__(self, "n_batches", fitting if self.length is None else self.length)
        object.__setattr__(self, "_round", _round(self.weights))
        if self.global_batch < 1 or self.n_batches < 1:
            raise ValueError(
                f"a mixture of {sum(sizes)} samples with a global batch of {self.global_batch} and batches="
                f"{self.length}: an epoch is at least one batch, and a batch at least one sample"
            )

    @property
    def shuffle(self) -> bool:
        """A mixture is always shuffled."""
        return True

    def taken(self, samples: int) -> Int64Array:
        """How many of the stream's first `samples` samples come from each part, int64 (parts,)."""
        rounds, rest = divmod(samples, sum(self.weights))
        return rounds * np.asarray(self.weights) + np.bincount(self._round[:rest], minlength=len(self.parts))

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The global batches of an epoch of the mixture, from number `first` on."""
        orders: dict[int, tuple[int, Int64Array]] = {}
        for step in range(epoch * self.n_batches + first, (epoch + 1) * self.n_batches):
            begin, end = self.taken(step * self.global_batch), self.taken((step + 1) * self.global_batch)
            drawn = [self._drawn(k, int(begin[k]), int(end[k]), orders) for k in range(len(self.parts))]
            shuffled = sample_rng(self.seed, 0, f"batch {step}", 0, "mix").permutation(self.global_batch)
            yield GlobalBatch(
                indexes=np.concatenate([i for i, _ in drawn])[shuffled],
                epochs=np.concatenate([e for _, e in drawn])[shuffled],
            )

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A sample of the same part in place of `index`."""
        part, own = self.find(index)
        return int(self.starts[part]) + self.parts[part].reserve(own, rng)

    def find(self, index: int) -> tuple[int, int]:
        """The part that sample `index` is of, and its number there."""
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return part, index - int(self.starts[part])

    def identity(self) -> dict[str, Any]:
        """What a saved position depends on, JSON-able."""
        whole = {
            "version": ORDER_VERSION,
            "seed": self.seed,
            "global_batch": self.global_batch,
            "batches": self.n_batches,
        }
        parts = [
            {
                "weight": weight,
                "dataset": dataset,
                **{k: v for k, v in order.identity().items() if k not in ("version", "global_batch")},
            }
            for weight, dataset, order in zip(self.weights, self.datasets, self.parts, strict=True)
        ]
        return {**whole, "parts": parts}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The state when a batch begins; "positions" says of each part its own epoch and how many samples of it are
        done.
        """
        taken = self.taken((epoch * self.n_batches + batch) * self.global_batch).tolist()
        each = [divmod(t, part.n_batches) for t, part in zip(taken, self.parts, strict=True)]
        positions = [{"epoch": own, "sample": sample} for own, sample in each]
        return {"epoch": epoch, "batch": batch, "positions": positions}

    def _drawn(
        self, part: int, begin: int, end: int, orders: dict[int, tuple[int, Int64Array]]
    ) -> tuple[Int64Array, Int64Array]:
        """Samples `begin` to `end` of a part's endless stream: indexes and epochs; `orders` keeps its last epoch."""
        order, indexes, epochs = self.parts[part], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while begin < end:
            epoch, at = divmod(begin, order.n_batches)
            if part not in orders or orders[part][0] != epoch:
                orders[part] = (epoch, order.epoch(epoch) + self.starts[part])
            indexes.append(orders[part][1][at : at + end - begin])
            epochs.append(np.full(len(indexes[-1]), epoch, np.int64))
            begin += len(indexes[-1])
        return np.concatenate(indexes), np.concatenate(epochs)


def _round(weights: tuple[int, ...]) -> Int64Array:
    """The parts of sum(weights) consecutive samples, evenly spread: the i-th of part k is due at (i + 0.5) / weight."""
    due = np.concatenate([(np.arange(w) + 0.5) / w for w in weights])
    return np.repeat(np.arange(len(weights)), weights)[np.argsort(due, kind="stable")]


@dataclass(frozen=True, slots=True)
class MixSampler:
    """Makes each sample as its own dataset's loader would."""

    samplers: tuple[VideoSampler, ...]
    order: MixOrder
    seed: int

    @property
    def needs_progress(self) -> bool:
        """Whether their masks change over the run."""
        return self.samplers[0].needs_progress

    def make(self, index: int, epoch: int, place: Place) -> VideoSample:
        """Sample `index` of the mixture as its part's `epoch` shows it."""
        part, own = self.order.find(index)
        return self.samplers[part].make(own, epoch, place)

    def collate(self, samples: list[VideoSample]) -> VideoBatch:
        """Samples to a batch; labels are the datasets' own."""
        return self.samplers[0].collate(samples)


def _video_sampler(loader: VideoLoader) -> VideoSampler:
    if isinstance(loader.sampler, VideoSampler):
        return loader.sampler
    reason = (
        "it is a mixture already; give its parts" if isinstance(loader.sampler, MixSampler) else "use backend='cpu'"
    )
    raise ValueError(f"a loader with {type(loader.sampler).__name__} cannot be part of a mixture: {reason}")


def _sample_by_sample(loader: VideoLoader) -> Order:
    order = loader.order
    if not isinstance(order, Order) or not order.shuffle or order.lanes > 1:
        raise ValueError(
            "a loader with shuffle=False or lanes cannot be part of a mixture, which shuffles all of a batch; use "
            "shuffle=True and lanes=1"
        )
    return replace(order, global_batch=1)


def _check_alike(samplers: Sequence[VideoSampler]) -> None:
    """ValueError where the samples of the parts do not fit into one batch."""
    for i, other in enumerate(samplers):
        one, two = _form(samplers[0]), _form(other)
        if differs := [f"{name}: {one[name]} and {two[name]}" for name in one if one[name] != two[name]]:
            raise ValueError(
                f"the loaders of a mixture share batches, and number {i} differs from number 0 in {'; '.join(differs)}"
            )


def _form(sampler: VideoSampler) -> dict[str, Any]:
    return {
        "clip.frames": sampler.clip.frames,
        "clip.size": sampler.clip.size,
        "token grid": sampler.grid,
        "views": sampler.views,
        "mask": sampler.mask,
        "flow": "yes" if sampler.flow else "no",
    }
