"""The stages of a batch, which a modality implements.

    request -> announce -> allocate -> mask -> fill -> join   ||   to the device -> finish

The stages left of the bars belong to a `Sampler` and run in threads of this process or of workers; those right of them
run in the caller's process, the last in a `Finish`. Each takes any number of samples. A request is drawn before any
byte is read and names the byte ranges. The draft is the memory of the whole batch, so joining copies nothing.

A request's ranges belong to the sampler's own dataset: the shards of two datasets may have the same names. A sampler
that reads a second one keeps its ranges apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """n samples, as they are drawn in some epochs at their places in the run.

    indexes, epochs: int64 (n,). rows: int64 (n,), those of the global batch, whose row 0 has the place `first` in the
    run. packed: the contents of n packed rows, None where a row is a sample.
    """

    indexes: Int64Array
    epochs: Int64Array
    rows: Int64Array
    first: Place = START
    packed: tuple[PackedRow, ...] | None = None

    @classmethod
    def of(cls, indexes: Sequence[int], epochs: int | Sequence[int] = 0) -> Wanted:
        """Samples at the beginning of the run, by themselves."""
        at = np.array(indexes, np.int64)
        return cls(indexes=at, epochs=np.broadcast_to(np.array(epochs, np.int64), at.shape), rows=np.zeros_like(at))

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def places(self) -> list[Place]:
        """The place of each sample in the run."""
        step, _, of, progress = self.first
        return [Place(step, row, of, progress) for row in self.rows.tolist()]

    def part(self, chosen: slice | Int64Array, start: int = 0) -> Wanted:
        """Those at the places `chosen`, int64 (n,), in a dataset whose first sample has the index `start` here."""
        packed = None if self.packed is None else tuple(self.packed[n] for n in np.arange(len(self))[chosen].tolist())
        indexes = self.indexes[chosen]
        return Wanted(
            indexes=indexes - start if start else indexes,
            epochs=self.epochs[chosen],
            rows=self.rows[chosen],
            first=self.first,
            packed=packed,
        )

    def each(self) -> list[Wanted]:
        """Each sample by itself."""
        return [self.part(slice(n, n + 1)) for n in range(len(self))]

    def replaced(self, indexes: Sequence[int]) -> Wanted:
        """The same places, where other samples are shown."""
        return replace(self, indexes=np.array(indexes, np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan(Wanted):
    """One rank's part of global batch `number` = (epoch, batch).

    weight: float32 (B,), 0 for padding. tried: per row, the number of candidates known to be unusable, the sample
    itself being the first candidate; empty if there are none.
    """

    number: tuple[int, int]
    weight: npt.NDArray[np.float32]
    tried: tuple[int, ...] = ()


class Request(Protocol):
    """The draws of samples that precede reading; `keys` are those of the samples.

    ranges: they cover all bytes that its `fill` may read of the sampler's own dataset, and their names belong to the
    store of that dataset. A sampler that reads a second dataset says in its request which ranges belong to that one.
    """

    @property
    def keys(self) -> Sequence[str]: ...

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

    request: makes every draw of samples that needs no bytes; raises SampleError if one lacks the component that is
    read. announce: tells the stores of the request's ranges that these will be read soon.
    allocate: the draft of a batch with a row for each sample of some requests (the views of a sample are one row here).
    mask: draws the masks of rows that need no content. These four are cheap and run in one thread.
    fill: reads and decodes the samples of a request, writes the rows `rows` with them in every array of the draft (over
    the remains of unusable samples), and draws the masks that need content. Many threads fill rows of one draft.
    join: the host batch of a draft whose rows are filled.

    `request` and `fill` raise SampleError if a sample is unusable. Each sample is then requested and filled alone,
    which tells which one it is; its row is requested, masked and filled with another sample, whose request `allocate`
    did not see.

    splits: the manifests of its samples, of which it takes the labels. with_labels: the same sampler whose labels are
    places in a table of names (see `Manifest.with_labels`).

    seed: the seed of all draws. needs_progress: whether the batches depend on the progress of the run. needs_torch:
    whether a worker process makes them with torch, which it then shares with the others; else its batches are of arrays
    until they are received (tensors.py). together: the samples of a request, which one thread fills; 1 where one takes
    long.
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

    def request(self, wanted: Wanted) -> RequestT: ...

    def announce(self, request: RequestT) -> Announcement: ...

    def allocate(self, requests: Sequence[RequestT]) -> DraftT: ...

    def mask(self, request: RequestT, draft: DraftT, rows: Sequence[int]) -> None: ...

    def fill(self, request: RequestT, draft: DraftT, rows: Sequence[int], stats: Stats) -> None: ...

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
