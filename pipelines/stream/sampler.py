"""Stages of a batch, which each modality implements.

    request -> announce -> allocate -> mask -> fill -> join   ||   to the device -> finish

The stages left of the bars belong to a `Sampler` and run in threads of this process or of workers; those on the right
run in the caller's process, the last in a `Finish`. Each handles any number of samples. A request is drawn before any
byte is read and lists the byte ranges. The draft is the memory of the whole batch, so joining copies nothing.

A request's ranges belong to the sampler's own dataset, since the shards of two datasets may have the same names. A
sampler that reads a second dataset keeps its ranges separate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import numpy as np

from maskstream.shards.arrays import Float32s, Int64s
from maskstream.shards.errors import SampleError
from maskstream.shards.stores.base import Announcement, Range

from .batch import Batch
from .order import PackedRow
from .rng import START, Place
from .samples import Samples
from .stats import Stats
from .weights import MixOptions, Weight

if TYPE_CHECKING:
    import torch

    from maskstream.shards.format.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """n samples with the epochs and positions of the run at which they are drawn."""

    indexes: Int64s
    """int64 (n,): samples."""
    epochs: Int64s
    """int64 (n,): epoch of each sample."""
    rows: Int64s
    """int64 (n,): rows of the global batch."""
    first: Place = START
    """Position of the global batch's row 0 in the run."""
    packed: tuple[PackedRow, ...] | None = None
    """Contents of n packed rows; None if a row is a sample."""

    @classmethod
    def of(cls, indexes: Sequence[int], epochs: int | Sequence[int] = 0) -> Wanted:
        """Select samples at the start of the run, independent of a batch."""
        at = np.array(indexes, np.int64)
        return cls(indexes=at, epochs=np.broadcast_to(np.array(epochs, np.int64), at.shape), rows=np.zeros_like(at))

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def places(self) -> list[Place]:
        """Return the position of each sample in the run."""
        step, _, of, progress = self.first
        return [Place(step, row, of, progress) for row in self.rows.tolist()]

    def part(self, chosen: slice | Int64s, start: int = 0) -> Wanted:
        """Select the samples `chosen`, int64 (n,), as samples of a dataset whose first sample has the index `start`
        here.
        """
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
        """Split into single samples."""
        return [self.part(slice(n, n + 1)) for n in range(len(self))]

    def replaced(self, indexes: Sequence[int]) -> Wanted:
        """Return the same positions with other samples."""
        return replace(self, indexes=np.array(indexes, np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan(Wanted):
    """One rank's part of global batch `number` = (epoch, batch)."""

    number: tuple[int, int]
    weight: Float32s
    """float32 (B,): 0 for padding."""
    tried: tuple[int, ...] = ()
    """Known unusable candidates of each row, the sample itself being the first; empty if there are none."""


class Request(Protocol):
    """Draws of samples that precede reading, with the samples' `keys`.

    `ranges` cover all bytes that `fill` may read from the sampler's own dataset; their names belong to its store. A
    sampler that reads a second dataset lists those ranges separately.
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
    """Creates host batches of one dataset. It contains only settings, so it can be sent to worker processes.

    Stages; the first four are cheap and run in one thread:
    - request: make every draw of samples that needs no data; SampleError if a sample lacks a required component.
    - announce: notify the stores that the request's ranges will be read soon.
    - allocate: create the draft of a batch with a row for each sample of some requests (the views of a sample are one
      row here).
    - mask: draw the masks of rows that need no content.
    - fill: read and decode the samples of a request, write them into the rows `rows` of every array of the draft
      (overwriting the remains of unusable samples), and draw the masks that need content. Many threads fill rows of one
      draft.
    - join: return the host batch of a filled draft.

    `request` and `fill` raise SampleError if a sample is unusable. Each sample is then requested and filled alone to
    find the unusable one; its row is requested, masked and filled with another sample, whose request `allocate` did not
    see.

    Attributes:
        splits: Manifests of the samples, the source of labels.
        with_labels: Returns the same sampler with labels from another table of names (see `Manifest.with_labels`).
        seed: Seed of all draws.
        needs_progress: Whether batches depend on the progress of the run.
        needs_torch: Whether worker processes need torch, which they then share; otherwise, batches consist of arrays
            until they are received (tensors.py).
        together: Samples per request, filled by one thread; 1 for slow samples.
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
    """Device transform: computes the batch from the host batch, whose tensors are already on `device`, in the caller's
    process.

    It may raise BadRowsError; those rows are then recreated from other samples, and the transform is called again.
    """

    def __call__(self, batch: HostT_contra, device: torch.device) -> BatchT_co: ...


class BadRowsError(Exception):
    """A device transform cannot use these rows; maps row numbers to errors (the views of a sample are one row)."""

    def __init__(self, rows: Mapping[int, SampleError]) -> None:
        super().__init__("; ".join(map(str, rows.values())))
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Device transform that changes nothing."""

    def __call__(self, batch: BatchT, device: torch.device) -> BatchT:
        """Return the host batch itself."""
        return batch


@dataclass(frozen=True, slots=True)
class Composed(Generic[HostT, MiddleT, BatchT]):
    """Two device transforms: `first`, then `then`."""

    first: Finish[HostT, MiddleT]
    then: Finish[MiddleT, BatchT]

    def __call__(self, batch: HostT, device: torch.device) -> BatchT:
        """Apply both transforms."""
        return self.then(self.first(batch, device), device)


class Visible(Protocol):
    """Maps the number of steps of a run to a sample's visible tokens at each step, int64 (steps,).

    Raises:
        ValueError: The number is not a function of the step alone.
    """

    def __call__(self, steps: int) -> Int64s: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSource(Generic[RequestT, DraftT, HostT, BatchT]):
    """Everything that determines the content of batches except their size.

    Attributes:
        sampler: Creates host batches (see sampler.py).
        finish: Device transform (see sampler.py).
        samples: Samples and their order.
        identity: JSON-able settings compared on resume; the order adds its own.
        visible: Visible tokens of a sample, for a token budget; None without a mask.
        form: Settings, by name, that all parts of a mixture must share.
        join: How sources of this kind are mixed; None mixes rows within batches.
        sizes: Number of samples of each part of a mixture.
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
    """Mixes sources with equal forms by weight; returns the sampler and samples of the mixture."""

    def __call__(
        self,
        sources: Sequence[BatchSource[Any, Any, Any, Any]],
        weights: Sequence[Weight],
        seed: int,
        options: MixOptions,
        /,
    ) -> tuple[Sampler[Any, Any, Any], Samples]: ...


def check_source(source: object, taker: str) -> None:
    """Raise ValueError unless the object is a source; `taker` starts the message, such as "Loader takes"."""
    if not isinstance(source, BatchSource):
        raise ValueError(
            f"{taker} BatchSources, got {source!r:.200}; make one with VideoData(...).source(Split.open(FOLDER, "
            '"video")), or open FOLDER with video_loader'
        )


def check_alike(forms: Sequence[Mapping[str, object]]) -> None:
    """Raise ValueError if the parts of a mixture cannot share a batch, judging by the forms of their sources."""
    one = forms[0]
    for i, other in enumerate(forms):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        if differs := [f"{name}: {one.get(name)} and {other.get(name)}" for name in names]:
            raise ValueError(
                f"the parts of a mixture share batches, so these settings must agree; part {i} differs from part 0 in "
                f"{'; '.join(differs)}"
            )
