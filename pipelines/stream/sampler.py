"""The stages of a batch, which a modality implements.

    requests -> announce -> allocate -> mask -> fill -> join   ||   to the device -> finish

The stages left of the bars belong to a `Sampler` and run in threads of this process or of workers; those right of them
run in the caller's process, the last in a `Finish`. A request is drawn before any byte is read and names the byte
ranges. The draft is the memory of the whole batch, so joining copies nothing.

A request's ranges belong to the sampler's own dataset: the shards of two datasets may have the same names. A sampler
that reads a second one keeps its ranges apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import check_type
from maskstream.shards.errors import SampleError
from maskstream.shards.stores.base import Announcement, Range

from .batch import Batch
from .order import Int64Array, PackedRow
from .rng import START, Place
from .samples import Samples
from .stats import Stats
from .weights import MixOptions, Weight

if TYPE_CHECKING:
    import torch

    from maskstream.shards.format.manifest import Manifest


class Wanted(NamedTuple):
    """Sample `index`, as it is drawn in `epoch` at its place in the run; `packed`: the samples of a packed row."""

    index: int  # type: ignore[assignment]  # tuples have a method of this name
    epoch: int
    place: Place = START
    packed: PackedRow | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """One rank's part of global batch `number` = (epoch, batch).

    indexes, epochs: int64 (B,). rows: int64 (B,), those of the global batch, whose row 0 has the place `first` in the
    run. weight: float32 (B,), 0 for padding. tried: per row, the number of candidates known to be unusable, the sample
    itself being the first candidate; empty if there are none. packed: the contents of B packed rows, None where a row
    is a sample.
    """

    number: tuple[int, int]
    indexes: Int64Array
    epochs: Int64Array
    rows: Int64Array
    first: Place
    weight: npt.NDArray[np.float32]
    tried: tuple[int, ...] = ()
    packed: tuple[PackedRow, ...] | None = None

    @property
    def wanted(self) -> list[Wanted]:
        """The sample that each row shall show."""
        packed = self.packed or (None,) * len(self.rows)
        step, _, of, progress = self.first
        places = [Place(step, row, of, progress) for row in self.rows.tolist()]
        return [*map(Wanted, self.indexes.tolist(), self.epochs.tolist(), places, packed)]

    def part(self, chosen: Int64Array, start: int) -> BatchPlan:
        """The plan of the rows `chosen`, int64 (n,), in a dataset whose first sample has the index `start` here."""
        return replace(
            self,
            indexes=self.indexes[chosen] - start,
            epochs=self.epochs[chosen],
            rows=self.rows[chosen],
            weight=self.weight[chosen],
        )


class Request(Protocol):
    """The draws of a sample that precede reading; `key` is the key of the sample.

    ranges: they cover all bytes that its `fill` may read of the sampler's own dataset, and their names belong to the
    store of that dataset. A sampler that reads a second dataset says in its request which ranges belong to that one.
    """

    @property
    def key(self) -> str: ...

    @property
    def ranges(self) -> Sequence[Range]: ...


RequestT = TypeVar("RequestT", bound=Request)
DraftT = TypeVar("DraftT")
HostT = TypeVar("HostT", bound=Batch)
HostT_co = TypeVar("HostT_co", bound=Batch, covariant=True)
HostT_contra = TypeVar("HostT_contra", bound=Batch, contravariant=True)
MiddleT = TypeVar("MiddleT", bound=Batch)
BatchT = TypeVar("BatchT", bound=Batch)
BatchT_co = TypeVar("BatchT_co", bound=Batch, covariant=True)


class Sampler(Protocol[RequestT, DraftT, HostT_co]):
    """Makes host batches of one dataset. It holds only settings, so it can be sent to worker processes.

    requests: makes every draw that needs no bytes; raises SampleError if a sample lacks the component that is read.
    announce: tells the stores of the request's ranges that these will be read soon.
    allocate: the draft of a batch with a row for each request (the views of a sample are one row here). mask: draws a
    row's masks if they need no content. These four are cheap and run in one thread.
    fill: reads and decodes samples, writes their whole rows of every array of the draft (over the remains of an
    unusable sample), and draws the masks that need content. Many threads fill rows of one draft.
    join: the host batch of a draft whose rows are filled.

    `requests` and `fill` take many samples, and raise SampleError if one is unusable. Each is then called for every
    sample alone; the row of one that is unusable is requested, masked and filled with another sample, whose request
    `allocate` did not see.

    splits: the manifests of its samples, of which it takes the labels. with_labels: the same sampler whose labels are
    places in a table of names (see `Manifest.with_labels`).

    seed: the seed of all draws. needs_progress: whether the batches depend on the progress of the run. needs_torch:
    whether a worker process makes them with torch, which it then shares with the others; else its batches are of arrays
    until they are received (tensors.py). together: how many rows one thread fills at once, 1 where a row takes long.
    """

    @property
    def splits(self) -> tuple[Manifest, ...]: ...

    @property
    def seed(self) -> int: ...

    @property
    def needs_progress(self) -> bool: ...

    @property
    def needs_torch(self) -> bool: ...

    @property
    def together(self) -> int: ...

    def with_labels(self, names: Sequence[str]) -> Self: ...

    def requests(self, wanted: Sequence[Wanted]) -> list[RequestT]: ...

    def announce(self, request: RequestT) -> Announcement: ...

    def allocate(self, requests: Sequence[RequestT]) -> DraftT: ...

    def mask(self, request: RequestT, draft: DraftT, row: int) -> None: ...

    def fill(self, requests: Sequence[RequestT], draft: DraftT, rows: Sequence[int], stats: Stats) -> None: ...

    def join(self, draft: DraftT) -> HostT_co: ...


@runtime_checkable
class WholeSampler(Protocol[DraftT, HostT_co]):
    """A sampler that can fill many small rows without an object for each.

    at_once: whether it does, with its settings. room: the draft of so many rows. fill_many: fills the rows `rows`,
    int64 (n,), of a draft with the n samples of a plan, draws their masks and counts them; False where anything is not
    in order: then the batch is made as by any other sampler, which also tells what is wrong.
    """

    @property
    def at_once(self) -> bool: ...

    def room(self, rows: int) -> DraftT: ...

    def fill_many(self, plan: BatchPlan, draft: DraftT, rows: Int64Array, stats: Stats) -> bool: ...

    def join(self, draft: DraftT) -> HostT_co: ...


class Finish(Protocol[HostT_contra, BatchT_co]):
    """Makes the batch from the host batch, whose tensors are already on `device`, in the caller's process.

    It may raise BadRowsError: those rows are then remade from other samples, and the finish is called again.
    """

    def __call__(self, batch: HostT_contra, device: torch.device) -> BatchT_co: ...


class BadRowsError(Exception):
    """A finish cannot use these rows: the error of each by its row number (the views of a sample are one row)."""

    def __init__(self, rows: Mapping[int, SampleError]) -> None:
        super().__init__("; ".join(map(str, rows.values())))
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The finish that changes nothing."""

    def __call__(self, batch: BatchT, device: torch.device) -> BatchT:
        """The host batch itself."""
        return batch


@dataclass(frozen=True, slots=True)
class Composed(Generic[HostT, MiddleT, BatchT]):
    """Two finishes: `first`, then `then`."""

    first: Finish[HostT, MiddleT]
    then: Finish[MiddleT, BatchT]

    def __call__(self, batch: HostT, device: torch.device) -> BatchT:
        """The batch after both."""
        return self.then(self.first(batch, device), device)


class Visible(Protocol):
    """Maps the steps of a run to the number of visible tokens of a sample at each step, int64 (steps,).

    Raises ValueError if that number is not a function of the step alone.
    """

    def __call__(self, steps: int) -> Int64Array: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSource(Generic[RequestT, DraftT, HostT, BatchT]):
    """Everything that decides the content of batches, except their size.

    sampler, finish: the stages of a batch (see sampler.py). samples: the samples and their order. identity: the
    settings that a resume compares, JSON-able; the order adds its own. visible: the visible tokens of a sample, for a
    token budget; None without a mask. form: the settings, by name, that all parts of a mixture must share. join: how
    sources like this one are mixed, None for rows of the same batches. sizes: the samples of each part of a mixture.
    """

    sampler: Sampler[RequestT, DraftT, HostT]
    finish: Finish[HostT, BatchT]
    samples: Samples
    identity: dict[str, Any]
    visible: Visible | None = None
    form: Mapping[str, object] = field(default_factory=dict)
    join: Join | None = None
    sizes: tuple[int, ...] = ()


class Join(Protocol):
    """Joins sources whose forms agree, by weight: the sampler and the samples of the mixture."""

    def __call__(
        self,
        sources: Sequence[BatchSource[Any, Any, Any, Any]],
        weights: Sequence[Weight],
        seed: int,
        options: MixOptions,
        /,
    ) -> tuple[Sampler[Any, Any, Any], Samples]: ...


def check_source(source: object, taker: str) -> None:
    """ValueError unless something is a source; taker: who takes it, such as "Loader takes"."""
    remedy = '; make one with VideoData(...).source(Split.open(FOLDER, "video")), or open FOLDER with video_loader'
    check_type(f"{taker} sources: ", source, BatchSource, remedy=remedy)


def check_alike(forms: Sequence[Mapping[str, object]]) -> None:
    """ValueError if the samples of the parts of a mixture cannot share a batch, by the forms of their sources."""
    one = forms[0]
    for i, other in enumerate(forms):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        if differs := [f"{name}: {one.get(name)} and {other.get(name)}" for name in names]:
            raise ValueError(
                f"the parts of a mixture share batches, so these settings must agree; part {i} differs from part 0 in "
                f"{'; '.join(differs)}"
            )
