"""The one sampler of every modality's rows: draws, announces, fills and joins what a modality plans and reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Self

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks import Maps
from maskstream.pipelines.masks.core import mask_purpose, needed_cues
from maskstream.pipelines.stream.order import Int64Array
from maskstream.pipelines.stream.sampler import BatchPlan, BatchSource, BatchT, HostT, Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import UNHEEDED, Announcement, Range, Together
from maskstream.shards.stores.local import LocalStore

from .fields import FieldReader, Value
from .rows import Filling, Item, Many, Masked, Memory, Planned, PlanT, RowMaker, SampleRows, mask_rngs_of
from .targets import TARGETS, TargetReader

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True, slots=True)
class Draft(Generic[PlanT, HostT]):
    """A batch that is being filled: per sample its rows, its plan and its fields, per mask and row its maps; and the
    targets of the rows.
    """

    batch: HostT
    own: list[SampleRows]
    labels: npt.NDArray[np.int64]
    planned: list[Planned[PlanT] | None]
    fields: list[dict[str, Value]]
    maps: dict[str, list[Maps | None]]
    targets: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class RowSampler(Generic[PlanT, HostT]):
    """Makes host batches of any modality. Every draw is a function of (seed, epoch, key, view, purpose).

    kept: int64 (n,), the samples of the split that are numbered here, None for all. early: the masks that are drawn
    before reading. late: those that need the content of a sample. needs: of each of these, the cues. follows: whether
    something is drawn after the masks. unheeded: whether all is read of a local folder, which heeds no announcement;
    then no ranges are made for one. at_once: whether `fill_many` fills rows. cycle: see `Item`. targets: reads
    those of samples into `fields`.
    """

    rows: RowMaker[PlanT, HostT]
    manifest: Manifest
    fields: FieldReader
    seed: int
    views: int = 1
    kept: npt.NDArray[np.int64] | None = None
    cycle: int | None = None
    targets: TargetReader | None = None
    early: tuple[Masked, ...] = field(init=False)
    late: tuple[Masked, ...] = field(init=False)
    needs: tuple[frozenset[str], ...] = field(init=False)
    follows: bool = field(init=False)
    unheeded: bool = field(init=False)
    at_once: bool = field(init=False)

    def __post_init__(self) -> None:
        # Once, because Mask.needs and grids walk and make objects at each call.
        own = [one for one in self.rows.masks if one.mask is not None and one.by_sampler]
        late = [one for one in own if one.mask is not None and one.mask.needs]
        object.__setattr__(self, "early", tuple(one for one in own if one not in late))
        object.__setattr__(self, "late", tuple(late))
        object.__setattr__(self, "needs", tuple(needed_cues(one.mask) for one in late if one.mask is not None))
        object.__setattr__(self, "follows", type(self.rows).after_masks is not RowMaker.after_masks)
        alone = self.targets is None and type(self.rows).other_ranges is RowMaker.other_ranges
        object.__setattr__(self, "unheeded", alone and type(self.manifest.store) is LocalStore)
        more = self.views > 1 or self.follows or self.fields.fields
        fills = type(self.rows).fill_many is not RowMaker.fill_many
        object.__setattr__(self, "at_once", fills and self.unheeded and not more)

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """The split."""
        return (self.manifest,)

    def with_labels(self, names: Sequence[str]) -> Self:
        """The same sampler with the labels, also those in fields, of another table of names."""
        manifest = self.manifest.with_labels(names)
        return replace(self, manifest=manifest, fields=replace(self.fields, manifest=manifest))

    @property
    def needs_progress(self) -> bool:
        """Whether a mask depends on the progress of the run."""
        return any(one.mask is not None and one.mask.needs_progress for one in self.rows.masks)

    @property
    def needs_torch(self) -> bool:
        """Whether the rows are made with torch."""
        return self.rows.needs_torch

    @property
    def together(self) -> int:
        """How many samples one thread fills at once."""
        return self.rows.together

    def requests(self, wanted: Sequence[Wanted]) -> list[Planned[PlanT]]:
        """Makes the plans of samples; raises SampleError if one lacks what is read."""
        indexes = [one.index if self.kept is None else int(self.kept[one.index]) for one in wanted]
        items = [
            Item(self.manifest, self.seed, self.views, index, one.epoch, one.place, shown, self.cycle)
            for one, index, shown in zip(wanted, indexes, self.rows.shown_all(self.manifest, indexes), strict=True)
        ]
        plans = self.rows.plan_all(items)
        if not self.fields.fields and self.targets is None:
            return [Planned(item, plan, {}) for item, plan in zip(items, plans, strict=True)]
        return [
            Planned(item, plan, self.fields.members(item.index), self._target(item))
            for item, plan in zip(items, plans, strict=True)
        ]

    def room(self, rows: int) -> Draft[PlanT, HostT]:
        """The memory of a batch of samples that `fill_many` writes, each in one view."""
        memory = Memory[PlanT]([], rows)
        return self._draft(memory, [SampleRows(0, rows, memory.arrays)], 0)

    def fill_many(self, plan: BatchPlan, draft: Draft[PlanT, HostT], rows: Int64Array, stats: Stats) -> bool:
        """Fills rows with the samples of a plan; False where `requests` and `fill` have to, or tell why not."""
        indexes = plan.indexes if self.kept is None else self.kept[plan.indexes]
        many = Many(self.manifest, self.seed, indexes, plan.epochs, plan)
        found = None
        with suppress(SampleError):
            found = self.rows.fill_many(many, draft.batch, draft.own[0], rows, stats)
        for name, maps in (found or {}).items():
            for row, own in zip(rows.tolist(), maps, strict=True):
                draft.maps[name][row] = own
        return found is not None

    def _target(self, item: Item) -> Range | None:
        """Where the targets of a sample are."""
        return None if self.targets is None else self.targets.place(self.manifest, item.index, item.epoch)

    def announce(self, request: Planned[PlanT]) -> Announcement:
        """Says that the ranges of a request will be read soon, each to the store that has them."""
        if self.unheeded:
            return UNHEEDED
        own = self.manifest.store.announce(request.ranges)
        others = self.rows.other_ranges(request.plan)
        if self.targets is not None and request.target is not None:
            others = (*others, (self.targets.manifest.store, (request.target,)))
        return Together((own, *(store.announce(ranges) for store, ranges in others))) if others else own

    def allocate(self, requests: Sequence[Planned[PlanT]]) -> Draft[PlanT, HostT]:
        """The memory of the batch of some requests."""
        views = len(requests) * self.views
        memory = Memory([request.plan for request in requests], views)
        own = [SampleRows(at, at + self.views, memory.arrays) for at in range(0, views, self.views)]
        return self._draft(memory, own, len(requests))

    def _draft(self, memory: Memory[PlanT], own: list[SampleRows], planned: int) -> Draft[PlanT, HostT]:
        return Draft(
            batch=self.rows.layout(memory),
            own=own,
            labels=memory.arrays[id(memory.label)][1],
            planned=[None] * planned,
            fields=[{} for _ in range(planned)],
            maps={one.field: [None] * memory.rows for one in (*self.early, *self.late)},
            targets=None if self.targets is None else memory(self.targets.dtype, *self.targets.shape[1:]),
        )

    def mask(self, request: Planned[PlanT], draft: Draft[PlanT, HostT], row: int) -> None:
        """Draws the masks of a sample's rows that need no content."""
        for one in self.early:
            for view in range(self.views):
                draft.maps[one.field][row * self.views + view] = one.maps(request.item, view)

    def fill(
        self, requests: Sequence[Planned[PlanT]], draft: Draft[PlanT, HostT], rows: Sequence[int], stats: Stats
    ) -> None:
        """Fills the rows of samples, and draws the masks that need content; SampleError if one is unusable.

        Fields are read last, so that of a sample with several faults the one of its media is told.
        """
        filling = [Filling(one.item, one.plan, draft.own[row]) for one, row in zip(requests, rows, strict=True)]
        items = [one.item for one in requests]
        rngs = [mask_rngs_of(items, mask_purpose(one.part)) for one in self.late]
        filled = self.rows.fill_each(filling, draft.batch, stats)
        for request, row, _ in zip(requests, rows, filled, strict=True):
            draft.planned[row] = request
            if self.targets is not None and draft.targets is not None and request.target is not None:
                with stats.stage("read"):
                    found = self.targets.read(self.manifest, request.item.index, request.target)
                draft.own[row].of(draft.targets)[:] = found  # one row may be that of all views
                stats.read_bytes += request.target.size
            if self.late or self.follows or self.fields.fields:
                self._complete(request, draft, row, rngs, stats)

    def _complete(
        self,
        request: Planned[PlanT],
        draft: Draft[PlanT, HostT],
        row: int,
        rngs: Sequence[Iterator[np.random.Generator]],
        stats: Stats,
    ) -> None:
        """Draws what needs the content of a filled row, and reads its fields; rngs: of each mask, for its next view."""
        item, plan = request.item, request.plan
        own = draft.own[row]
        if self.late:
            with stats.stage("mask"):
                for view, place in enumerate(range(own.start, own.stop)):
                    for one, needs, own_rngs in zip(self.late, self.needs, rngs, strict=True):
                        cues = self.rows.cues(item, plan, draft.batch, place, one.part, needs)
                        draft.maps[one.field][place] = one.maps(item, view, cues, next(own_rngs))
        if self.follows:
            self.rows.after_masks(item, plan, {name: maps[own.slice] for name, maps in draft.maps.items()}, stats)
        if self.fields.fields:
            draft.fields[row] = self.fields.read(item, plan, request.members, stats)

    def join(self, draft: Draft[PlanT, HostT]) -> HostT:
        """The host batch; the views of a sample are consecutive rows."""
        planned = [one for one in draft.planned if one is not None]
        if planned:  # else `fill_many` has written them
            shown = [one.item.shown for one in planned for _ in range(self.views)]
            draft.labels[:] = [one.label for one in shown]
            draft.batch.key[:] = [one.key for one in shown]
        made: dict[str, Any] = {
            one.field: one.mask.batched(one.grid, [own for own in draft.maps[one.field] if own is not None])
            for one in (*self.early, *self.late)
            if one.mask is not None
        }
        if self.fields.fields:
            made["fields"] = self.fields.collated(draft.fields, self.views)
        if draft.targets is not None:
            made["fields"] = made.get("fields", {}) | {TARGETS: draft.targets}
        batch = self.rows.put(draft.batch, made) if made else draft.batch
        return self.rows.join(batch, planned)


RowSource = BatchSource[Planned[PlanT], Draft[PlanT, HostT], HostT, BatchT]
