"""A batch, stage by stage: what a modality brings.

    request -> allocate -> mask -> fill -> join   ||   to the device -> finish

What is left of the bars is a `Sampler`'s and happens in threads, of this process or of workers; what is right of them
is a `Finish`'s and happens in the caller's process. A request is drawn before a byte is read, so whoever has it knows
what is going to be read. The draft is the memory of the whole batch, which nothing is copied to join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from ...shards.errors import SampleError
from ...shards.stores.base import Range
from .batch import Batch
from .place import START, Place
from .stats import Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Sample `index` as `epoch` shows it at its place in the run."""

    index: int
    epoch: int
    place: Place = START


class Request(Protocol):
    """What was drawn for a sample. ranges: all bytes that its `fill` may read, or more."""

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
    """Makes batches of one dataset; holds settings only, so that it can be sent to worker processes.

    request: draws all that can be drawn for a sample before anything is read; SampleError where the sample lacks what
    is read. allocate: the memory of a batch of so many rows (a sample's views are one row here). mask: draws a row's
    masks where they follow nothing that the sample shows. These three run in one thread and are cheap. fill: reads and
    decodes, writes all of its row of every array of the draft (of a sample that could not be used there may be a part),
    and draws the masks that follow what it shows; many threads fill rows of one draft. SampleError where the sample
    cannot be used: its row is requested, masked and filled again, of another sample. join: the batch of a draft whose
    rows are filled.

    seed: of all draws. needs_progress: whether what it makes changes over the run.
    """

    @property
    def seed(self) -> int: ...

    @property
    def needs_progress(self) -> bool: ...

    def request(self, wanted: Wanted) -> RequestT: ...

    def allocate(self, rows: int) -> DraftT: ...

    def mask(self, request: RequestT, draft: DraftT, row: int) -> None: ...

    def fill(self, request: RequestT, draft: DraftT, row: int, stats: Stats) -> None: ...

    def join(self, draft: DraftT) -> HostT_co: ...


class Finish(Protocol[HostT_contra, BatchT_co]):
    """Makes the batch of what `join` made, whose tensors are on `device` by then, in the caller's process.

    It may raise BadRowsError: then those rows are made again of other samples, and it is called anew.
    """

    def __call__(self, batch: HostT_contra, device: torch.device) -> BatchT_co: ...


class BadRowsError(Exception):
    """Rows of a batch whose samples a finish cannot use: the number of each, views not counted, and what is wrong."""

    def __init__(self, rows: Mapping[int, SampleError]) -> None:
        super().__init__("; ".join(map(str, rows.values())))
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The finish of a batch that is whole when it is joined."""

    def __call__(self, batch: BatchT, device: torch.device) -> BatchT:
        """The batch as it is."""
        return batch


@dataclass(frozen=True, slots=True)
class Composed(Generic[HostT, MiddleT, BatchT]):
    """Two finishes, one after the other."""

    first: Finish[HostT, MiddleT]
    then: Finish[MiddleT, BatchT]

    def __call__(self, batch: HostT, device: torch.device) -> BatchT:
        """What `then` makes of what `first` makes."""
        return self.then(self.first(batch, device), device)
