"""The rows of a modality, which is a data config with three functions.

    plan(item)             the draws of a sample that need no bytes, and the byte ranges to read
    layout(memory)         the batch of n rows, whose tensors are still empty
    fill(item, plan, ...)  reads, decodes and writes the rows of one sample

The sampler (row_sampler.py) does the rest alike for all: keys, labels, views, masks, fields, announcing, joining. A
sample's rows are written into the memory of the batch, so joining copies nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks import Cues, Draw, Maps, Mask, TokenGrid
from maskstream.pipelines.masks.core import maps_of
from maskstream.pipelines.masks.core.visible import visible_tokens
from maskstream.pipelines.stream.kept import empty
from maskstream.pipelines.stream.order import Int64Array
from maskstream.pipelines.stream.rng import Place, sample_rng, sample_rngs
from maskstream.pipelines.stream.sampler import BatchPlan, HostT, Visible, Wanted
from maskstream.pipelines.stream.samples import Samples
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.tensors import tensor_of
from maskstream.shards.config import Config
from maskstream.shards.errors import SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range, Store

if TYPE_CHECKING:
    from torch import Tensor

    from .split import Split

NO_CUES = Cues()


class Plan(Protocol):
    """What is drawn of a sample before it is read: `ranges` cover all bytes that its `fill` may read of the split."""

    @property
    def ranges(self) -> tuple[Range, ...]: ...


PlanT = TypeVar("PlanT", bound=Plan)
PartT = TypeVar("PartT", bound=Plan)


class Shown(NamedTuple):
    """The key and the label of a row in its batch, and the key of its draws: the same, but in a row of many samples."""

    key: str
    label: int
    drawn: str


class Draws(Protocol):
    """Makes the draws of a sample that is shown in `views` views, by name; an `Item` does for those of a split."""

    @property
    def views(self) -> int: ...

    def rng(self, purpose: str, view: int = 0) -> np.random.Generator: ...

    def rngs(self, purpose: str) -> list[np.random.Generator]: ...

    def draw(self, view: int, cues: Cues = NO_CUES, part: str = "", rng: np.random.Generator | None = None) -> Draw: ...


class Item(NamedTuple):
    """Sample `index` of a split, as it is shown in `epoch` at its place in the run; it makes all draws by name.

    cycle: after how many epochs all draws but those of masks repeat, which then do not depend on the seed; None: never.
    """

    manifest: Manifest
    seed: int
    views: int
    index: int  # type: ignore[assignment]  # tuples have a method of this name
    epoch: int
    place: Place
    shown: Shown
    cycle: int | None = None

    @property
    def cycled(self) -> tuple[int, int]:
        """The seed and the epoch of all draws but those of masks."""
        return (self.seed, self.epoch) if self.cycle is None else (0, self.epoch % self.cycle)

    @property
    def wanted(self) -> Wanted:
        """The sample and where it is shown."""
        return Wanted(self.index, self.epoch, self.place)

    def rng(self, purpose: str, view: int = 0) -> np.random.Generator:
        """The generator of one decision for one view."""
        return sample_rng(*self.cycled, self.shown.drawn, view, purpose)

    def rngs(self, purpose: str) -> list[np.random.Generator]:
        """The generators of one decision for all views."""
        return [self.rng(purpose, view) for view in range(self.views)]

    def draw(self, view: int, cues: Cues = NO_CUES, part: str = "", rng: np.random.Generator | None = None) -> Draw:
        """The draw of the mask of a view, or of one of its parts; rng: its generator, where it is made already."""
        return Draw.of(self.seed, self.epoch, self.shown.drawn, view, self.place, cues, part, rng)

    def read(self, ranges: Sequence[Range], stats: Stats) -> list[bytes]:
        """The bytes of some ranges, counted."""
        with stats.stage("read"):
            found = self.manifest.store.read_many(ranges)
        stats.read_bytes += sum(map(len, found))
        return found


def rngs_of(items: Sequence[Item], purpose: str, views: int | None = None) -> Iterator[np.random.Generator]:
    """The generators of one decision for `views` views of each item, by default all; each is valid until the next."""
    names = (
        (item.cycled[1], item.shown.drawn, view)
        for item in items
        for view in range(item.views if views is None else views)
    )
    return sample_rngs(items[0].cycled[0], names, purpose)


def mask_rngs_of(items: Sequence[Item], purpose: str) -> Iterator[np.random.Generator]:
    """The same of masks, which do not repeat."""
    names = ((item.epoch, item.shown.drawn, view) for item in items for view in range(item.views))
    return sample_rngs(items[0].seed, names, purpose)


class Many(NamedTuple):
    """Samples of a split that are shown in one view each, as an `Item` says of one: indexes, epochs, int64 (n,), and
    the plan that says their places in the run, None where masks are drawn elsewhere.
    """

    manifest: Manifest
    seed: int
    indexes: Int64Array
    epochs: Int64Array
    plan: BatchPlan | None = None


Arrays = dict[int, tuple["Tensor", npt.NDArray[Any]]]
"""The tensors of a batch and their arrays, which share memory, by the tensor's `id`."""


class Memory(Generic[PlanT]):
    """The memory of a batch of `rows` rows, a row for each view of the samples of `plans`.

    key: the keys of the rows. label: their labels, int64 (rows,). The sampler writes both. arrays: of all tensors that
    were made here.
    """

    def __init__(self, plans: Sequence[PlanT], rows: int, arrays: Arrays | None = None) -> None:
        self.plans, self.rows = plans, rows
        self.arrays: Arrays = {} if arrays is None else arrays
        self.key, self.label = [""] * rows, self(np.int64)

    def __call__(self, dtype: npt.DTypeLike, *shape: int) -> Tensor:
        """A new tensor (rows, *shape) of any content."""
        array = empty((self.rows, *shape), dtype)
        tensor = tensor_of(array)
        self.arrays[id(tensor)] = tensor, array
        return tensor

    def of(self, plans: Sequence[PartT]) -> Memory[PartT]:
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


class Planned(NamedTuple, Generic[PlanT]):
    """An item, its plan, and where its fields lie; and its targets, in shards of their own."""

    item: Item
    plan: PlanT
    members: dict[str, Range]
    target: Range | None = None

    @property
    def key(self) -> str:
        """The key of the sample."""
        return self.item.shown.key

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read of the split."""
        return (*self.plan.ranges, *self.members.values()) if self.members else self.plan.ranges


class Filling(NamedTuple, Generic[PlanT]):
    """A sample whose rows `own` are to be written."""

    item: Item
    plan: PlanT
    own: SampleRows


def read_all(filling: Sequence[Filling[PlanT]], component: str, stats: Stats) -> list[list[bytes]]:
    """What each sample's plan reads of a component, all at once; raises the SampleError of the first that cannot be."""
    item = filling[0].item
    try:
        with item.manifest.reading(item.index, component):
            found = iter(item.read([place for one in filling for place in one.plan.ranges], stats))
    except SampleError:
        for one in filling if len(filling) > 1 else ():
            read_all([one], component, Stats())
        raise
    return [list(islice(found, len(one.plan.ranges))) for one in filling]


def is_of_package(value: object) -> bool:
    """Whether a config, or each of some, and all in it are of this package."""
    if isinstance(value, tuple):
        return all(map(is_of_package, value))
    if not isinstance(value, Config):
        return True
    return ":" not in value.kind() and all(is_of_package(getattr(value, f.name)) for f in fields(value))


class RowMaker(ABC, Generic[PlanT, HostT]):
    """Makes the rows of a batch. It holds only settings, so it can be sent to worker processes.

    Where many samples cost less together, `plan_all` and `fill_all`, or `fill_each`, say how; an error of theirs makes
    each sample be tried alone.
    """

    __slots__ = ()

    @property
    def together(self) -> int:
        """How many samples one thread fills at once; by default one, as where a sample takes long."""
        return 1

    @property
    def needs_torch(self) -> bool:
        """Whether worker processes make the rows with torch; by default they do (see `Sampler`)."""
        return True

    @property
    @abstractmethod
    def masks(self) -> tuple[Masked, ...]:
        """The masks of a batch."""

    @abstractmethod
    def plan(self, item: Item) -> PlanT:
        """Draws all that needs no bytes, and finds the byte ranges; SampleError if the sample lacks what is read."""

    @abstractmethod
    def layout(self, memory: Memory[PlanT]) -> HostT:
        """The empty batch."""

    @abstractmethod
    def fill(self, item: Item, plan: PlanT, batch: HostT, own: SampleRows, stats: Stats) -> None:
        """Writes the rows `own` of one sample, over the remains of an unusable one; SampleError if it is unusable.

        Many threads fill rows of one batch. What is no row of a tensor is assigned to the plan, for `cues` and `join`.
        `own.of(batch.NAME)` is where a sample is written in a tensor: a slice of torch costs ten times as much.
        """

    def plan_all(self, items: Sequence[Item]) -> list[PlanT]:
        """The plans of some samples; SampleError if one of them lacks what is read."""
        return [self.plan(item) for item in items]

    def fill_all(self, filling: Sequence[Filling[PlanT]], batch: HostT, stats: Stats) -> None:
        """Writes the rows of some samples; SampleError if one of them is unusable."""
        for one in filling:
            self.fill(one.item, one.plan, batch, one.own, stats)

    def fill_each(self, filling: Sequence[Filling[PlanT]], batch: HostT, stats: Stats) -> Iterator[None]:
        """The same, with a pause after each sample: then its masks are drawn, and what follows them; by default after
        all.
        """
        self.fill_all(filling, batch, stats)
        yield from (None for _ in filling)

    def fill_many(
        self, items: Many, batch: HostT, own: SampleRows, rows: Int64Array, stats: Stats
    ) -> Mapping[str, Sequence[Maps]] | None:
        """Writes the rows `rows`, int64 (n,), of n samples with their keys and labels, by arrays, where they are small
        and all of them are in order; their maps, by field. By default None: then `plan_all` and `fill_each` make
        them, or tell why not. own: finds the arrays of the batch.
        """
        return None

    def shown_all(self, manifest: Manifest, indexes: Sequence[int]) -> list[Shown]:
        """What a batch says of some samples."""
        labels = manifest.label[np.array(indexes, np.int64)].tolist()
        return [Shown(key, label, key) for key, label in zip(manifest.keys(indexes), labels, strict=True)]

    def other_ranges(self, plan: PlanT) -> tuple[tuple[Store, tuple[Range, ...]], ...]:
        """The byte ranges that `fill` may read of other datasets, each with its store; by default none."""
        return ()

    def cues(self, item: Item, plan: PlanT, batch: HostT, row: int, part: str, needs: frozenset[str]) -> Cues:
        """The cues of a filled row for the mask of a part of the sample, which needs some of them; by default none."""
        return NO_CUES

    def after_masks(self, item: Item, plan: PlanT, maps: Mapping[str, Sequence[Maps | None]], stats: Stats) -> None:
        """Draws what follows the masks of a sample, and assigns it to the plan; maps: those of its views, by field."""

    def put(self, batch: HostT, made: Mapping[str, Any]) -> HostT:
        """The batch with its masks, by `Masked.field`, and its `fields`; by default each is a field of it."""
        return replace(batch, **made)

    def join(self, batch: HostT, planned: Sequence[Planned[PlanT]]) -> HostT:
        """The host batch of filled rows and their masks; by default `batch` is all of it."""
        return batch

    def samples(self, split: Split) -> Samples:
        """The samples of a source of these rows, and their order; by default those of the split."""
        return split.samples

    def identity(self, split: Split) -> dict[str, Any]:
        """What a resume compares besides the data config; by default the split."""
        return split.identity

    @property
    def form(self) -> Mapping[str, object]:
        """What the parts of a mixture must share besides masks and the settings that the config names; by default
        nothing.
        """
        return {}

    @property
    def visible(self) -> Visible | None:
        """The visible tokens of a sample, for a token budget; by default those of all masks together."""
        return visible_tokens(*((one.mask, one.grid) for one in self.masks))
