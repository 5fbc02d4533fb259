"""The rows of a modality: a maker of them is a data config with three functions, each of which takes many samples.

    plan(items)              the draws of samples that need no bytes, and the byte ranges to read
    layout(memory)           the batch of n rows, whose tensors are still empty
    fill(rows, batch, stats) reads, decodes and writes the rows of samples

Kernels take the arrays of `items` and `rows`; what takes long goes through them sample by sample. One sample is a batch
of one. The sampler (row_sampler.py) does the rest alike for all: keys, labels, views, masks, fields, targets, joining,
and it finds out which sample is unusable. Rows are written into the memory of the batch, so joining copies nothing.
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
from maskstream.pipelines.stream.order import Int64Array
from maskstream.pipelines.stream.rng import Place, sample_rng, sample_rngs
from maskstream.pipelines.stream.sampler import HostT, Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.tensors import wrap_tensor
from maskstream.shards.config import Config
from maskstream.shards.errors import SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range, Store

if TYPE_CHECKING:
    from torch import Tensor

NO_CUES = Cues()


class Plan(Protocol):
    """What is drawn of a sample before it is read: `ranges` cover all bytes that its `fill` may read of the split."""

    @property
    def ranges(self) -> tuple[Range, ...]: ...


class Elsewhere(ABC):
    """A plan that also reads another dataset."""

    __slots__ = ()

    @property
    @abstractmethod
    def elsewhere(self) -> tuple[Store, Sequence[Range]] | None:
        """The store of another dataset, and the byte ranges that `fill` may read of it."""


PlanT = TypeVar("PlanT", bound=Plan)
PartT = TypeVar("PartT", bound=Plan)


class Draws(Protocol):
    """Makes the draws of a sample that is shown in `views` views, by name; an `Item` does for those of a split."""

    @property
    def views(self) -> int: ...

    def rng(self, purpose: str, view: int = 0) -> np.random.Generator: ...

    def rngs(self, purpose: str) -> list[np.random.Generator]: ...

    def draw(self, view: int, cues: Cues = NO_CUES, part: str = "", rng: np.random.Generator | None = None) -> Draw: ...


class Item(NamedTuple):
    """Sample `index` of a split, as it is shown in `epoch` at its place in the run; it makes all draws by name.

    key: of its draws. cycle: after how many epochs all draws but those of masks repeat, which then do not depend on the
    seed; None: never.
    """

    manifest: Manifest
    seed: int
    views: int
    index: int  # type: ignore[assignment]  # tuples have a method of this name
    epoch: int
    place: Place
    key: str
    cycle: int | None = None

    def rng(self, purpose: str, view: int = 0) -> np.random.Generator:
        """The generator of one decision for one view."""
        return sample_rng(*_draw_cycle(self.seed, self.epoch, self.cycle), self.key, view, purpose)

    def rngs(self, purpose: str) -> list[np.random.Generator]:
        """The generators of one decision for all views."""
        return [self.rng(purpose, view) for view in range(self.views)]

    def draw(self, view: int, cues: Cues = NO_CUES, part: str = "", rng: np.random.Generator | None = None) -> Draw:
        """The draw of the mask of a view, or of one of its parts; rng: its generator, where it is made already."""
        return Draw.of(self.seed, self.epoch, self.key, view, self.place, cues, part, rng)

    def read(self, ranges: Sequence[Range], stats: Stats) -> list[bytes]:
        """The bytes of some ranges, counted."""
        with stats.stage("read"):
            found = self.manifest.store.read_many(ranges)
        stats.read_bytes += sum(map(len, found))
        return found


def _draw_cycle(seed: int, epoch: int, cycle: int | None) -> tuple[int, int]:
    """The seed and the epoch of all draws except masks."""
    return (seed, epoch) if cycle is None else (0, epoch % cycle)


class Items:
    """Samples of a split, as they are shown in `views` views each: `wanted`, by their numbers in the split.

    keys, labels: what a batch says of each. drawn: the keys of their draws. A maker whose rows have many samples gives
    them others.
    """

    def __init__(self, manifest: Manifest, seed: int, views: int, wanted: Wanted, cycle: int | None = None) -> None:
        self.manifest, self.seed, self.views, self.wanted, self.cycle = manifest, seed, views, wanted, cycle

    @cached_property
    def keys(self) -> list[str]:
        """What a batch says of each."""
        return self.manifest.keys(self.wanted.indexes.tolist())

    @cached_property
    def labels(self) -> Int64Array:
        """Their labels, int64 (n,)."""
        return self.manifest.label[self.wanted.indexes]

    @cached_property
    def drawn(self) -> list[str]:
        """The keys of their draws."""
        return self.keys

    def __len__(self) -> int:
        return len(self.wanted)

    def __iter__(self) -> Iterator[Item]:
        """Each by itself."""
        return iter(self._each)

    @cached_property
    def _each(self) -> list[Item]:
        columns = (self.wanted.indexes.tolist(), self.wanted.epochs.tolist(), self.wanted.places, self.drawn)
        return [Item(self.manifest, self.seed, self.views, *one, self.cycle) for one in zip(*columns, strict=True)]

    def part(self, n: int) -> Items:
        """Sample n alone."""
        return Items(self.manifest, self.seed, self.views, self.wanted.part(slice(n, n + 1)), self.cycle)

    def rngs(self, purpose: str, views: int | None = None) -> Iterator[np.random.Generator]:
        """The generators of one decision for the first `views` views of each, by default all; each is valid until the
        next.
        """
        epochs = [_draw_cycle(self.seed, epoch, self.cycle) for epoch in self.wanted.epochs.tolist()]
        names = self._names([epoch for _, epoch in epochs], self.views if views is None else views)
        return sample_rngs(epochs[0][0], names, purpose)

    def mask_names(self) -> Iterator[tuple[int, str, int]]:
        """The epoch, key and view by which the masks of each are drawn, which do not repeat."""
        return self._names(self.wanted.epochs.tolist(), self.views)

    def _names(self, epochs: Sequence[int], views: int) -> Iterator[tuple[int, str, int]]:
        both = zip(epochs, self.drawn, strict=True)
        return ((epoch, key, view) for epoch, key in both for view in range(views))


Arrays = dict[int, tuple["Tensor", npt.NDArray[Any]]]
"""The tensors of a batch and their arrays, which share memory, by the tensor's `id`."""


class Memory(Generic[PlanT]):
    """The memory of a batch of `rows` rows, a row for each view of the samples of `plans`.

    key: the keys of the rows. label: their labels, int64 (rows,). The sampler writes both. arrays: of all tensors that
    were made here.
    """

    def __init__(self, plans: Iterable[PlanT], rows: int, arrays: Arrays | None = None) -> None:
        self._plans, self.rows = plans, rows
        self.arrays: Arrays = {} if arrays is None else arrays
        self.key, self.label = [""] * rows, self(np.int64)

    @cached_property
    def plans(self) -> list[PlanT]:
        """Those of the samples; made when they are asked for, since plans of small rows are arrays."""
        return list(self._plans)

    def __call__(self, dtype: npt.DTypeLike, *shape: int) -> Tensor:
        """A new tensor (rows, *shape) of any content."""
        array = empty((self.rows, *shape), dtype)
        tensor = wrap_tensor(array)
        self.arrays[id(tensor)] = tensor, array
        return tensor

    def of(self, plans: Iterable[PartT]) -> Memory[PartT]:
        """Memory for as many rows of a part of the samples, whose plans these are."""
        return Memory(plans, self.rows, self.arrays)


class SampleRows:
    """The rows of one sample in its batch: those from `start` to `stop`.

    They are taken of the arrays that the batch's memory has, because each `Tensor.numpy` takes as long as a small mask.
    """

    __slots__ = ("_arrays", "start", "stop")

    def __init__(self, start: int, stop: int, arrays: Arrays | None = None) -> None:
        self.start, self.stop, self._arrays = start, stop, arrays or {}

    @property
    def slice(self) -> slice:
        """The rows as a slice."""
        return slice(self.start, self.stop)

    def whole(self, tensor: Tensor) -> npt.NDArray[Any]:
        """A whole tensor of the batch as an array, which shares its memory."""
        known = self._arrays.get(id(tensor))
        return tensor.numpy() if known is None else known[1]

    def of(self, tensor: Tensor) -> npt.NDArray[Any]:
        """The rows in a tensor of the batch."""
        return self.whole(tensor)[self.start : self.stop]


class Masked(NamedTuple):
    """A mask of a batch.

    field: the field of the batch that it becomes. grid: the tokens that it is drawn on. part: the part of the sample
    (see `Draw`). of: changes the maps of each view, such as `TextMaps.of`. by_sampler: False where the rows or a finish
    draw it.
    """

    field: str
    mask: Mask | None
    grid: TokenGrid
    part: str = ""
    of: Callable[[Maps], Maps] | None = None
    by_sampler: bool = True

    def maps(self, item: Draws, view: int, cues: Cues = NO_CUES, rng: np.random.Generator | None = None) -> Maps | None:
        """Those of a view of a sample; None without a mask."""
        if self.mask is None:
            return None
        maps = maps_of(self.mask, self.grid, item.draw(view, cues, self.part, rng))
        return maps if self.of is None else self.of(maps)


Drawn = dict[str, list[Maps | None]]
"""The maps of the rows of a batch, by the part of the sample that a mask is of; None before they are drawn."""


class Late(NamedTuple):
    """A mask that needs cues, and which; asked once, because masks walk their fields to tell."""

    masked: Masked
    needs: frozenset[str]


def list_late_masks(masks: Iterable[Masked]) -> tuple[Late, ...]:
    """Those of some masks that need cues, and that the sampler draws."""
    found = [(one, one.mask) for one in masks if one.by_sampler]
    return tuple(Late(one, needed_cues(mask)) for one, mask in found if mask is not None and mask.needs)


class BatchRows(Generic[PlanT]):
    """The rows of some samples in their batch: those of sample n from `starts[n]` on, one for each view.

    maps: of the batch.
    """

    def __init__(
        self, items: Items, plans: Sequence[PlanT], starts: Sequence[int], arrays: Arrays, maps: Drawn | None = None
    ) -> None:
        self.items, self.plans, self.starts, self._arrays = items, plans, starts, arrays
        self.maps: Drawn = {} if maps is None else maps

    def __iter__(self) -> Iterator[tuple[Item, PlanT, SampleRows]]:
        """Each sample, its plan, and its rows."""
        views = self.items.views
        for item, plan, start in zip(self.items, self.plans, self.starts, strict=True):
            yield item, plan, SampleRows(start, start + views, self._arrays)

    def of(self, plans: Sequence[PartT]) -> BatchRows[PartT]:
        """The same rows of a part of the samples, whose plans these are."""
        return BatchRows(self.items, plans, self.starts, self._arrays, self.maps)

    def whole(self, tensor: Tensor) -> npt.NDArray[Any]:
        """A whole tensor of the batch as an array, which shares its memory."""
        return SampleRows(0, 0, self._arrays).whole(tensor)

    def read(self, component: str, stats: Stats) -> list[list[bytes]]:
        """What each plan reads of a component, all at once; raises the SampleError of the first that cannot be."""
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
    """Whether a config, or each of some, and all in it are of this package."""
    if isinstance(value, tuple):
        return all(map(is_of_package, value))
    if not isinstance(value, Config):
        return True
    return ":" not in value.kind() and all(is_of_package(getattr(value, f.name)) for f in fields(value))


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What is known of a row maker before it makes any row.

    together: how many samples one thread fills at once; one where a sample takes long. needs_torch: whether worker
    processes make the rows with torch (see `Sampler`). identity: what a resume compares besides the data config and the
    split. form: what the parts of a mixture must share besides masks and the settings that the config names. counted:
    whether the visible tokens of a sample follow from the masks alone, for a token budget. shard_rows: the rows of each
    shard, where rows take the place of samples.
    """

    together: int = 1
    needs_torch: bool = True
    identity: Mapping[str, Any] = field(default_factory=dict)
    form: Mapping[str, object] = field(default_factory=dict)
    counted: bool = True
    shard_rows: tuple[int, ...] | None = None


class RowMaker(ABC, Generic[PlanT, HostT]):
    """Makes the rows of a batch. It holds only settings, so it can be sent to worker processes."""

    __slots__ = ()

    @property
    def traits(self) -> Traits:
        """What is known before any row is made."""
        return Traits()

    @property
    @abstractmethod
    def masks(self) -> tuple[Masked, ...]:
        """The masks of a batch, each of another part of the samples."""

    @abstractmethod
    def plan(self, items: Items) -> Sequence[PlanT]:
        """Draws all that needs no bytes, and finds the byte ranges; SampleError if a sample lacks what is read."""

    @abstractmethod
    def layout(self, memory: Memory[PlanT]) -> HostT:
        """The empty batch."""

    @abstractmethod
    def fill(self, rows: BatchRows[PlanT], batch: HostT, stats: Stats) -> None:
        """Writes the rows of some samples, over the remains of unusable ones; SampleError if one is unusable.

        Many threads fill rows of one batch. What is no row of a tensor is assigned to the plan, for `cues` and `join`.
        `own.of(batch.NAME)` is where a sample is written in a tensor: a slice of torch costs ten times as much.
        """

    def cues(self, rows: BatchRows[PlanT], batch: HostT, n: int, view: int, part: str, needs: frozenset[str]) -> Cues:
        """The cues of a view of filled sample n for the mask of a part, which needs some of them; by default none."""
        return NO_CUES

    def join(self, batch: HostT, plans: Iterable[PlanT], made: Mapping[str, Any]) -> HostT:
        """The host batch of filled rows, with what is made of them together: the masks, by `Masked.field`, and its
        `fields`; by default each is a field of it. plans: of the samples, in the order of their rows.
        """
        return replace(batch, **made)

    def draw_masks(self, rows: BatchRows[PlanT], batch: HostT, n: int, late: Iterable[Late]) -> None:
        """Draws the masks of filled sample n that need cues, for makers whose `fill` goes on from them."""
        for (item, _, own), (masked, needs) in product(islice(rows, n, n + 1), late):
            for view, row in enumerate(range(own.start, own.stop)):
                cues = self.cues(rows, batch, n, view, masked.part, needs)
                rows.maps[masked.part][row] = masked.maps(item, view, cues)
