"""The sampler of all modalities: draws, announces, fills and joins the rows that a modality plans and reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, Self

from maskstream.pipelines.masks.core import mask_purpose
from maskstream.pipelines.stream.rng import sample_rngs
from maskstream.pipelines.stream.sampler import BatchSource, BatchT, HostT, Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Int64s
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import UNHEEDED, Announcement, Range, Store, Together
from maskstream.shards.stores.local import LocalStore

from .fields import FieldReader, Value
from .rows import BatchRows, Drawn, Elsewhere, Items, Late, Masked, Memory, PlanT, RowMaker, Traits, list_late_masks
from .targets import TARGETS, TargetReader

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RowRequest(Generic[PlanT]):
    """Samples and their plans, with the locations of their fields and targets, if any."""

    items: Items
    plans: Sequence[PlanT]
    members: Sequence[Mapping[str, Range]] = ()
    targets: Sequence[Range] = ()

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the samples."""
        return self.items.keys

    @property
    def ranges(self) -> list[Range]:
        """Byte ranges that are read from the split."""
        return [*(one for plan in self.plans for one in plan.ranges), *chain(*(own.values() for own in self.members))]


@dataclass(kw_only=True, slots=True)
class Draft(Generic[PlanT, HostT]):
    """A batch being filled: the samples filled so far and their rows, the mask maps and fields of each row, and the
    targets.
    """

    batch: HostT
    memory: Memory[PlanT]
    maps: Drawn
    fields: list[dict[str, Value]]
    targets: Tensor | None
    filled: list[tuple[Sequence[int], RowRequest[PlanT]]] = field(default_factory=list)

    @property
    def plans(self) -> Iterator[PlanT]:
        """Plans of the samples in row order."""
        by_row = {row: plan for rows, request in self.filled for row, plan in zip(rows, request.plans, strict=True)}
        return (by_row[row] for row in sorted(by_row))


@dataclass(frozen=True, kw_only=True)
class RowSampler(Generic[PlanT, HostT]):
    """Creates host batches of any modality. Every draw is a function of (seed, epoch, key, view, purpose)."""

    rows: RowMaker[PlanT, HostT]
    manifest: Manifest
    fields: FieldReader
    seed: int
    views: int = 1
    kept: Int64s | None = None
    """int64 (n,): samples of the split that are loaded; None for all."""
    cycle: int | None = None
    """Number of epochs after which draws repeat; see `Item`."""
    targets: TargetReader | None = None
    """Reader of targets, returned in `fields`."""

    @cached_property
    def traits(self) -> Traits:
        """Properties of the rows that are known in advance."""
        return self.rows.traits

    @cached_property
    def masks(self) -> tuple[Masked, ...]:
        """Masks of a batch."""
        return tuple(one for one in self.rows.masks if one.mask is not None and one.by_sampler)

    @cached_property
    def late(self) -> tuple[Late, ...]:
        """Masks that need the content of a sample. All others are drawn before reading."""
        return list_late_masks(self.masks)

    @cached_property
    def early(self) -> tuple[Masked, ...]:
        """Masks that are drawn before reading."""
        return tuple(one for one in self.masks if one.mask is not None and not one.mask.needs)

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """The split."""
        return (self.manifest,)

    def with_labels(self, names: Sequence[str]) -> Self:
        """Return the same sampler with labels, including those in fields, from another name table."""
        manifest = self.manifest.with_labels(names)
        return replace(self, manifest=manifest, fields=replace(self.fields, manifest=manifest))

    @property
    def needs_progress(self) -> bool:
        """True if a mask depends on the progress of the run."""
        return any(one.mask is not None and one.mask.needs_progress for one in self.rows.masks)

    @property
    def needs_torch(self) -> bool:
        """True if creating rows needs torch."""
        return self.traits.needs_torch

    @property
    def together(self) -> int:
        """Number of samples that a thread fills at once."""
        return self.traits.together

    def request(self, wanted: Wanted) -> RowRequest[PlanT]:
        """Plan samples.

        Raises:
            SampleError: A sample lacks a required member.
        """
        if self.kept is not None:
            wanted = replace(wanted, indexes=self.kept[wanted.indexes])
        items = Items(self.manifest, self.seed, self.views, wanted, self.cycle)
        plans, members, targets = self.rows.plan(items), [], []
        if self.fields.fields:
            members = [self.fields.members(index) for index in wanted.indexes.tolist()]
        if self.targets is not None:
            both = zip(wanted.indexes.tolist(), wanted.epochs.tolist(), strict=True)
            targets = [self.targets.place(self.manifest, index, epoch) for index, epoch in both]
        return RowRequest(items=items, plans=plans, members=members, targets=targets)

    def announce(self, request: RowRequest[PlanT]) -> Announcement:
        """Announce to each store the ranges that will be read soon."""
        others: list[tuple[Store, Sequence[Range]]] = []
        if self.targets is not None:
            others.append((self.targets.manifest.store, request.targets))
        plans: Sequence[object] = request.plans
        if isinstance(plans[0], Elsewhere):  # all plans are of one type; plans of small rows are created on access
            found = (plan.elsewhere for plan in plans if isinstance(plan, Elsewhere))
            others += [one for one in found if one is not None]
        if not others and type(self.manifest.store) is LocalStore:
            return UNHEEDED  # everything is read from a local folder, so its store needs no ranges
        own = self.manifest.store.announce(request.ranges)
        return Together((own, *(store.announce(ranges) for store, ranges in others))) if others else own

    def allocate(self, requests: Sequence[RowRequest[PlanT]]) -> Draft[PlanT, HostT]:
        """Allocate the batch of some requests."""
        n = sum(len(request.items) for request in requests)
        memory = Memory(chain.from_iterable(request.plans for request in requests), n * self.views)
        return Draft(
            batch=self.rows.layout(memory),
            memory=memory,
            maps={one.part: [None] * memory.rows for one in self.masks},
            fields=[{} for _ in range(n)],
            targets=None if self.targets is None else memory(self.targets.dtype, *self.targets.shape[1:]),
        )

    def mask(self, request: RowRequest[PlanT], draft: Draft[PlanT, HostT], rows: Sequence[int]) -> None:
        """Draw the masks that do not depend on the samples' content."""
        for masked in self.early:
            maps = draft.maps[masked.part]
            for row, item in zip(rows, request.items, strict=True):
                for view in range(self.views):
                    maps[row * self.views + view] = masked.maps(item, view)

    def fill(self, request: RowRequest[PlanT], draft: Draft[PlanT, HostT], rows: Sequence[int], stats: Stats) -> None:
        """Fill the rows of samples and draw the masks that need their content.

        Fields are read last, so that for a sample with several faults the one in its media is reported.

        Raises:
            SampleError: A sample is unusable.
        """
        views, items = self.views, request.items
        own = BatchRows(items, request.plans, [row * views for row in rows], draft.memory.arrays, draft.maps)
        for masked, _ in self.late:  # clear the maps of unusable samples
            for start in own.starts:
                draft.maps[masked.part][start : start + views] = [None] * views
        self.rows.fill(own, draft.batch, stats)
        if self.targets is not None and draft.targets is not None:
            self._read_targets(self.targets, draft.targets, own, request.targets, stats)
        if self.late:
            with stats.stage("mask"):
                self._draw_late(own, draft)
        if self.fields.fields:
            for row, item, plan, members in zip(rows, items, request.plans, request.members, strict=True):
                draft.fields[row] = self.fields.read(item, plan, members, stats)
        key, label = draft.batch.key, own.whole(draft.memory.label)
        for start, name, number in zip(own.starts, items.keys, items.labels.tolist(), strict=True):
            for row in range(start, start + views):
                key[row], label[row] = name, number
        draft.filled.append((rows, request))

    def _read_targets(
        self, reader: TargetReader, targets: Tensor, own: BatchRows[PlanT], places: Sequence[Range], stats: Stats
    ) -> None:
        """Write the targets of samples; all views may share one row."""
        for (item, _, rows), place in zip(own, places, strict=True):
            with stats.stage("read"):
                rows.of(targets)[:] = reader.read(self.manifest, item.index, place)
            stats.read_bytes += place.size

    def _draw_late(self, own: BatchRows[PlanT], draft: Draft[PlanT, HostT]) -> None:
        """Draw the masks that need content, except those that `fill` has drawn already."""
        for masked, needs in self.late:
            maps = draft.maps[masked.part]
            if all(maps[start + view] is not None for start in own.starts for view in range(self.views)):
                continue
            # Setting the state of one generator for each view is 5x faster than creating one.
            rngs = sample_rngs(self.seed, own.items.mask_names(), mask_purpose(masked.part))
            for n, (item, start) in enumerate(zip(own.items, own.starts, strict=True)):
                for view, rng in enumerate(islice(rngs, self.views)):
                    cues = self.rows.cues(own, draft.batch, n, view, masked.part, needs)
                    maps[start + view] = masked.maps(item, view, cues, rng)

    def join(self, draft: Draft[PlanT, HostT]) -> HostT:
        """Finish the host batch; the views of a sample are consecutive rows."""
        made: dict[str, Any] = {
            one.field: one.mask.batched(one.grid, [maps for maps in draft.maps[one.part] if maps is not None])
            for one in self.masks
            if one.mask is not None
        }
        if self.fields.fields:
            made["fields"] = self.fields.collated(draft.fields, self.views)
        if draft.targets is not None:
            made["fields"] = made.get("fields", {}) | {TARGETS: draft.targets}
        return self.rows.join(draft.batch, draft.plans, made)


RowSource = BatchSource[RowRequest[PlanT], Draft[PlanT, HostT], HostT, BatchT]
