"""Interface of a modality's rows: three functions, each of which handles many samples at once.

    plan(items)              draws everything that needs no data, and finds the byte ranges to read
    layout(memory)           creates the batch of n rows, with uninitialised tensors
    fill(rows, batch, stats) reads, decodes and writes the rows of samples

Fast kernels process the arrays of `items` and `rows` directly; slow operations iterate over them. A single sample is a
batch of one. The sampler (row_sampler.py) does everything that is common to all modalities: keys, labels, views, masks,
fields, targets and joining, and it identifies unusable samples. Rows are written directly into the memory of the batch,
so joining copies nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks import Cues, Draw, Maps, Mask, TokenGrid
from maskstream.pipelines.masks.core import maps_of, needed_cues
from maskstream.pipelines.stream.kept import empty
from maskstream.pipelines.stream.rng import Place, sample_rng, sample_rngs
from maskstream.pipelines.stream.sampler import HostT, Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.tensors import wrap_tensor
from maskstream.shards.arrays import Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range, Store

if TYPE_CHECKING:
    from torch import Tensor

NO_CUES = Cues()


class Plan(Protocol):
    """Decisions drawn for a sample before reading; `ranges` cover all bytes that `fill` may read from the split."""

    @property
    def ranges(self) -> tuple[Range, ...]: ...


class Elsewhere(ABC):
    """A plan that also reads from another dataset."""

    __slots__ = ()

    @property
    @abstractmethod
    def elsewhere(self) -> tuple[Store, Sequence[Range]] | None:
        """The store of another dataset and the byte ranges that `fill` may read from it."""


PlanT = TypeVar("PlanT", bound=Plan)
PartT = TypeVar("PartT", bound=Plan)


class Draws(Protocol):
    """Source of a sample's named random draws for `views` views; implemented by `Item` for samples of a split."""

    @property
    def views(self) -> int: ...

    def rng(self, purpose: str, view: int = 0) -> np.random.Generator: ...

    def rngs(self, purpose: str) -> list[np.random.Generator]: ...

    def draw(self, view: int, cues: Cues = NO_CUES, part: str = "", rng: np.random.Generator | None = None) -> Draw: ...


class Item(NamedTuple):
    """Sample `index` of a split in a given epoch and position of the run; the source of its named random draws."""

    manifest: Manifest
    seed: int
    views: int
    index: int  # type: ignore[assignment]  # tuples have a method of this name
    epoch: int
    place: Place
    key: str
    """Key of the draws."""
    cycle: int | None = None
    """Number of epochs after which all draws except masks repeat, independent of the seed; None for never."""

    def rng(self, purpose: str, view: int = 0) -> np.random.Generator:
        """Return the random generator of one decision for one view."""
        return sample_rng(*_draw_cycle(self.seed, self.epoch, self.cycle), self.key, view, purpose)

    def rngs(self, purpose: str) -> list[np.random.Generator]:
        """Return the random generators of one decision for all views."""
        return [self.rng(purpose, view) for view in range(self.views)]

    def draw(self, view: int, cues: Cues = NO_CUES, part: str = "", rng: np.random.Generator | None = None) -> Draw:
        """Return the draw of a view's mask, optionally of one part; pass `rng` if the generator already exists."""
        return Draw.of(self.seed, self.epoch, self.key, view, self.place, cues, part, rng)

    def read(self, ranges: Sequence[Range], stats: Stats) -> list[bytes]:
        """Read byte ranges and count them in `stats`."""
        with stats.stage("read"):
            found = self.manifest.store.read_many(ranges)
        stats.read_bytes += sum(map(len, found))
        return found


def _draw_cycle(seed: int, epoch: int, cycle: int | None) -> tuple[int, int]:
    """Return the seed and epoch of all draws except masks."""
    return (seed, epoch) if cycle is None else (0, epoch % cycle)


class Items:
    """Samples of a split with `views` views each, selected by `wanted`.

    `keys` and `labels` are reported in the batch; `drawn` are the keys of random draws. Makers whose rows contain
    several samples override them.
    """

    def __init__(self, manifest: Manifest, seed: int, views: int, wanted: Wanted, cycle: int | None = None) -> None:
        self.manifest, self.seed, self.views, self.wanted, self.cycle = manifest, seed, views, wanted, cycle

    @cached_property
    def keys(self) -> list[str]:
        """Keys reported in the batch."""
        return self.manifest.keys(self.wanted.indexes.tolist())

    @cached_property
    def labels(self) -> Int64s:
        """Labels, int64 (n,)."""
        return self.manifest.label[self.wanted.indexes]

    @cached_property
    def drawn(self) -> list[str]:
        """Keys of the random draws."""
        return self.keys

    def __len__(self) -> int:
        return len(self.wanted)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over single samples."""
        return iter(self._each)

    @cached_property
    def _each(self) -> list[Item]:
        columns = (self.wanted.indexes.tolist(), self.wanted.epochs.tolist(), self.wanted.places, self.drawn)
        return [Item(self.manifest, self.seed, self.views, *one, self.cycle) for one in zip(*columns, strict=True)]

    def part(self, n: int) -> Items:
        """Return only sample n."""
        return Items(self.manifest, self.seed, self.views, self.wanted.part(slice(n, n + 1)), self.cycle)

    def rngs(self, purpose: str, views: int | None = None) -> Iterator[np.random.Generator]:
        """Yield the generators of one decision for the first `views` views of each sample (all by default); each
        generator is valid until the next one is yielded.
        """
        epochs = [_draw_cycle(self.seed, epoch, self.cycle) for epoch in self.wanted.epochs.tolist()]
        names = self._names([epoch for _, epoch in epochs], self.views if views is None else views)
        return sample_rngs(epochs[0][0], names, purpose)

    def mask_names(self) -> Iterator[tuple[int, str, int]]:
        """Yield epoch, key and view for the masks of each sample; masks never repeat."""
        return self._names(self.wanted.epochs.tolist(), self.views)

    def _names(self, epochs: Sequence[int], views: int) -> Iterator[tuple[int, str, int]]:
        both = zip(epochs, self.drawn, strict=True)
        return ((epoch, key, view) for epoch, key in both for view in range(views))


Arrays = dict[int, tuple["Tensor", npt.NDArray[Any]]]
"""Tensors of a batch and NumPy arrays that share their memory, by the tensor's `id`."""


class Memory(Generic[PlanT]):
    """Allocator of a batch with `rows` rows, one per view of each planned sample.

    The sampler writes `key` and `label`, int64 (rows,). `arrays` holds all tensors created here.
    """

    def __init__(self, plans: Iterable[PlanT], rows: int, arrays: Arrays | None = None) -> None:
        self._plans, self.rows = plans, rows
        self.arrays: Arrays = {} if arrays is None else arrays
        self.key, self.label = [""] * rows, self(np.int64)

    @cached_property
    def plans(self) -> list[PlanT]:
        """Plans of the samples; created on access, since plans of small rows are stored as arrays."""
        return list(self._plans)

    def __call__(self, dtype: npt.DTypeLike, *shape: int) -> Tensor:
        """Allocate an uninitialised tensor (rows, *shape)."""
        array = empty((self.rows, *shape), dtype)
        tensor = wrap_tensor(array)
        self.arrays[id(tensor)] = tensor, array
        return tensor

    def of(self, plans: Iterable[PartT]) -> Memory[PartT]:
        """Return memory with the same rows for one part of the samples."""
        return Memory(plans, self.rows, self.arrays)


class SampleRows:
    """The rows `start` to `stop` of one sample in its batch.

    Arrays are looked up in the batch's memory because each call of `Tensor.numpy` takes as long as drawing a small
    mask.
    """

    __slots__ = ("_arrays", "start", "stop")

    def __init__(self, start: int, stop: int, arrays: Arrays | None = None) -> None:
        self.start, self.stop, self._arrays = start, stop, arrays or {}

    @property
    def slice(self) -> slice:
        """Rows as a slice."""
        return slice(self.start, self.stop)

    def whole(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a whole tensor of the batch as an array that shares its memory."""
        known = self._arrays.get(id(tensor))
        return tensor.numpy() if known is None else known[1]

    def of(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return the sample's rows of a tensor in the batch."""
        return self.whole(tensor)[self.start : self.stop]


class Masked(NamedTuple):
    """A mask of a batch."""

    field: str
    """Field of the batch that receives the mask."""
    mask: Mask | None
    """Mask to draw; None for none."""
    grid: TokenGrid
    """Token grid."""
    part: str = ""
    """Part of the sample (see `Draw`)."""
    of: Callable[[Maps], Maps] | None = None
    """Conversion of each view's maps, such as `TextMaps.of`."""
    by_sampler: bool = True
    """False if the rows or a device transform draw the mask."""

    def maps(self, item: Draws, view: int, cues: Cues = NO_CUES, rng: np.random.Generator | None = None) -> Maps | None:
        """Draw the maps of a view; None without a mask."""
        if self.mask is None:
            return None
        maps = maps_of(self.mask, self.grid, item.draw(view, cues, self.part, rng))
        return maps if self.of is None else self.of(maps)


Drawn = dict[str, list[Maps | None]]
"""Maps of a batch's rows, by part of the sample; None until drawn."""


class Late(NamedTuple):
    """A mask that needs inputs from the sample, and their names (cached, because a mask traverses its fields to find
    them).
    """

    masked: Masked
    needs: frozenset[str]


def list_late_masks(masks: Iterable[Masked]) -> tuple[Late, ...]:
    """Select the masks that need inputs and are drawn by the sampler."""
    found = [(one, one.mask) for one in masks if one.by_sampler]
    return tuple(Late(one, needed_cues(mask)) for one, mask in found if mask is not None and mask.needs)


class BatchRows(Generic[PlanT]):
    """Rows of some samples in their batch: sample n has one row per view, starting at `starts[n]`.

    `maps` belongs to the whole batch.
    """

    def __init__(
        self, items: Items, plans: Sequence[PlanT], starts: Sequence[int], arrays: Arrays, maps: Drawn | None = None
    ) -> None:
        self.items, self.plans, self.starts, self._arrays = items, plans, starts, arrays
        self.maps: Drawn = {} if maps is None else maps

    def __iter__(self) -> Iterator[tuple[Item, PlanT, SampleRows]]:
        """Iterate over samples with their plans and rows."""
        views = self.items.views
        for item, plan, start in zip(self.items, self.plans, self.starts, strict=True):
            yield item, plan, SampleRows(start, start + views, self._arrays)

    def of(self, plans: Sequence[PartT]) -> BatchRows[PartT]:
        """Return the same rows for one part of the samples."""
        return BatchRows(self.items, plans, self.starts, self._arrays, self.maps)

    def whole(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a whole tensor of the batch as an array that shares its memory."""
        return SampleRows(0, 0, self._arrays).whole(tensor)

    def read(self, component: str, stats: Stats) -> list[list[bytes]]:
        """Read a component's ranges of all plans at once.

        Raises:
            SampleError: A sample cannot be read; refers to the first one.
        """
        item = next(iter(self.items))
        try:
            with item.manifest.reading(item.index, component):
                found = iter(item.read([place for plan in self.plans for place in plan.ranges], stats))
        except SampleError:
            for other, plan in zip(self.items, self.plans, strict=True) if len(self.plans) > 1 else ():
                with other.manifest.reading(other.index, component):
                    other.read(plan.ranges, Stats())
            raise
        return [list(islice(found, len(plan.ranges))) for plan in self.plans]


def is_of_package(value: object) -> bool:
    """Return whether a config, or each of several, consists only of classes of this package."""
    if isinstance(value, tuple):
        return all(map(is_of_package, value))
    if not isinstance(value, Config):
        return True
    return ":" not in value.kind() and all(is_of_package(getattr(value, f.name)) for f in fields(value))


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """Properties of a row maker that are known before it creates rows."""

    together: int = 1
    """Number of samples that a thread fills at once; 1 for slow samples."""
    needs_torch: bool = True
    """Whether worker processes need torch to create the rows (see `Sampler`)."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Values compared on resume in addition to the data config and the split."""
    form: Mapping[str, object] = field(default_factory=dict)
    """Values that must agree between the parts of a mixture, besides masks and the settings that the config lists."""
    counted: bool = True
    """Whether the number of visible tokens follows from the masks alone, as token budgets require."""
    shard_rows: tuple[int, ...] | None = None
    """Rows of each shard, for makers that load rows instead of samples."""


class RowMaker(ABC, Generic[PlanT, HostT]):
    """Creates the rows of a batch. It contains only settings, so it can be sent to worker processes."""

    __slots__ = ()

    @property
    def traits(self) -> Traits:
        """Properties that are known before any row is created."""
        return Traits()

    @property
    @abstractmethod
    def masks(self) -> tuple[Masked, ...]:
        """Masks of a batch, each for a different part of the samples."""

    @abstractmethod
    def plan(self, items: Items) -> Sequence[PlanT]:
        """Draw everything that needs no data and find the byte ranges.

        Raises:
            SampleError: A sample lacks a required member.
        """

    @abstractmethod
    def layout(self, memory: Memory[PlanT]) -> HostT:
        """Create the empty batch."""

    @abstractmethod
    def fill(self, rows: BatchRows[PlanT], batch: HostT, stats: Stats) -> None:
        """Write the rows of some samples, overwriting the remains of unusable ones.

        Many threads fill rows of one batch. Results that are not rows of a tensor are stored in the plan, for `cues`
        and `join`. Write to `own.of(batch.NAME)`: slicing a torch tensor costs ten times as much.

        Raises:
            SampleError: A sample is unusable.
        """

    def cues(self, rows: BatchRows[PlanT], batch: HostT, n: int, view: int, part: str, needs: frozenset[str]) -> Cues:
        """Return the mask inputs of a view of filled sample n for one part; by default none."""
        return NO_CUES

    def join(self, batch: HostT, plans: Iterable[PlanT], made: Mapping[str, Any]) -> HostT:
        """Finish the host batch.

        Args:
            batch: Filled rows.
            plans: Plans of the samples in row order.
            made: Values created for the whole batch: masks, by `Masked.field`, and `fields`. By default, each becomes a
                field of the batch.
        """
        return replace(batch, **made)

    def draw_masks(self, rows: BatchRows[PlanT], batch: HostT, n: int, late: Iterable[Late]) -> None:
        """Draw the masks of filled sample n that need inputs, for makers whose `fill` depends on them."""
        for (item, _, own), (masked, needs) in product(islice(rows, n, n + 1), late):
            for view, row in enumerate(range(own.start, own.stop)):
                cues = self.cues(rows, batch, n, view, masked.part, needs)
                rows.maps[masked.part][row] = masked.maps(item, view, cues)
