"""Create batches of packed rows; a row is filled sample by sample and replaces its unusable samples itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.masks import Maps
from maskstream.pipelines.modalities.fields import Value
from maskstream.pipelines.modalities.rows import Item, Items
from maskstream.pipelines.stream.kept import empty
from maskstream.pipelines.stream.order import GlobalBatch, PackedRow
from maskstream.pipelines.stream.produce import Tries, candidates
from maskstream.pipelines.stream.row_mix import RowMix
from maskstream.pipelines.stream.row_order import RowSamples
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.weights import find_part
from maskstream.shards.arrays import Bools, Float32s, Int64s, UInt8s
from maskstream.shards.errors import MovedError, SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Announcement, Range, Together

from .batch import KINDS, SOUND, PackedBatch, PackedMask
from .native import NativePlan, NativeSamples, Shape

Room = tuple[UInt8s, Float32s]
"""Memory for the tokens of images and clips, and for the tokens of audio."""


@dataclass(kw_only=True, slots=True)
class PackedSample:
    """A slot in a row: its shape and number of visible tokens are fixed, but the sample in it may be replaced."""

    native: NativeSamples
    """Kind and settings of the sample."""
    shape: Shape
    """Tokens of the slot."""
    visible: int
    """Number of tokens that the encoder sees."""
    left: Iterator[Wanted]
    """Remaining candidates."""
    item: Item
    label: int
    """Label reported in the batch."""
    plan: NativePlan
    members: dict[str, Range]
    tries: Tries = field(default_factory=lambda: Tries(0))
    """Unusable candidates before `item`."""
    maps: Maps | None = None
    fields: dict[str, Value] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of tokens."""
        t, h, w = self.shape
        return t * h * w

    @property
    def kind(self) -> int:
        """Kind of the sample, a number in `KINDS`."""
        return KINDS.index(self.native.kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRequest:
    """Samples of a row in drawing order; the row has the key of the first."""

    slots: list[PackedSample]

    @property
    def keys(self) -> Sequence[str]:
        """Key of the first sample."""
        return [self.slots[0].item.key if self.slots else ""]

    @property
    def ranges(self) -> Sequence[Range]:
        """Byte ranges to read from the split."""
        return [one for slot in self.slots for one in (*slot.plan.ranges, *slot.members.values())]

    @property
    def tokens(self) -> tuple[int, int]:
        """Number of tokens of images and clips, and number of tokens of audio."""
        sounds = sum(slot.size for slot in self.slots if slot.kind == SOUND)
        return sum(slot.size for slot in self.slots) - sounds, sounds


@dataclass(kw_only=True, slots=True)
class RowDraft:
    """Tokens of a batch, the start of each row in them, int64 (R + 1, 2), and the rows' samples."""

    room: Room
    starts: Int64s
    rows: list[list[PackedSample]]


@dataclass(frozen=True, kw_only=True)
class PackedSampler:
    """Creates host batches of packed rows. Every draw is a function of (seed, epoch, key, view, purpose)."""

    natives: tuple[NativeSamples, ...]
    samples: RowSamples | RowMix

    @property
    def splits(self) -> tuple[Manifest, ...]:
        """Split of each part."""
        return tuple(native.manifest for native in self.natives)

    def with_labels(self, names: Sequence[str]) -> Self:
        """Return the same sampler with labels, including those in fields, from another name table."""
        manifests = [native.manifest.with_labels(names) for native in self.natives]
        natives = tuple(
            replace(native, manifest=own, fields=replace(native.fields, manifest=own))
            for native, own in zip(self.natives, manifests, strict=True)
        )
        return replace(self, natives=natives)

    @property
    def seed(self) -> int:
        """Seed of replacements."""
        return self.natives[0].seed

    @property
    def needs_progress(self) -> bool:
        """True if weights, sizes or ratios change over the run."""
        return isinstance(self.samples, RowMix) and self.samples.points_of_change is not None

    @property
    def needs_torch(self) -> bool:
        """Always true: rows are assembled with torch."""
        return True

    @property
    def together(self) -> int:
        """One row at a time, since it has many samples."""
        return 1

    def request(self, wanted: Wanted) -> PackedRequest:
        """Request the samples of a row, replacing those found unusable.

        Without a packed row, a single sample is requested with unscaled counts and without replacement.
        """
        row = self._alone(wanted) if wanted.packed is None else wanted.packed[0]
        first = wanted.first if row.progress is None else wanted.first._replace(progress=row.progress)
        slots = []
        for index, epoch, shape, visible, (native, crop) in zip(
            row.indexes.tolist(),
            row.epochs.tolist(),
            row.shape.tolist(),
            row.visible.tolist(),
            self._crops(row),
            strict=True,
        ):
            one = replace(Wanted.of([index], epoch), rows=wanted.rows, first=first)
            left = iter([one]) if wanted.packed is None else candidates(one, self.seed, self.samples.reserve)
            slots.append(self._slot(native, left, tuple(shape), visible, crop))
        return PackedRequest(slots=slots)

    def _crops(self, row: PackedRow) -> list[tuple[NativeSamples, tuple[int, int]]]:
        """Return the kind and the width and height of the crop for each sample of a row."""
        starts = self.samples.starts
        of = np.searchsorted(starts, row.indexes, side="right") - 1
        found: dict[int, tuple[NativeSamples, tuple[int, int]]] = {}
        for part in np.unique(of).tolist():
            places = np.flatnonzero(of == part)
            native = self.natives[part].at(row.progress or 0.0)
            own = GlobalBatch(indexes=row.indexes[places] - starts[part], epochs=row.epochs[places])
            for place, (wide, tall) in zip(places.tolist(), native.draw(own).crop.tolist(), strict=True):
                found[place] = native, (wide, tall)
        return [found[place] for place in range(len(of))]

    def announce(self, request: PackedRequest) -> Announcement:
        """Announce that the ranges of a request will be read soon."""
        of_store: dict[int, list[PackedSample]] = {}
        for slot in request.slots:
            of_store.setdefault(id(slot.native.manifest), []).append(slot)
        return Together(
            tuple(
                slots[0].native.manifest.store.announce(PackedRequest(slots=slots).ranges)
                for slots in of_store.values()
            )
        )

    def allocate(self, requests: Sequence[PackedRequest]) -> RowDraft:
        """Allocate the batch of some requests."""
        starts = np.cumsum([(0, 0), *(request.tokens for request in requests)], axis=0)
        pixels, sounds = starts[-1].tolist()
        size = {native.dtype: native.token_size for native in self.natives}
        room = (
            empty((pixels, size.get(np.uint8, 0)), np.uint8),
            empty((sounds, size.get(np.float32, 0)), np.float32),
        )
        return RowDraft(room=room, starts=starts, rows=[[] for _ in requests])

    def mask(self, request: PackedRequest, draft: RowDraft, rows: Sequence[int]) -> None:
        """Do nothing: a replacement has another mask, so `fill` draws it."""

    def fill(self, request: PackedRequest, draft: RowDraft, rows: Sequence[int], stats: Stats) -> None:
        """Fill a row. An unusable sample is replaced by another in its shape.

        Raises:
            SampleError: No candidate is left.
        """
        (row,) = rows
        at = draft.starts[row].tolist()
        for slot in request.slots:
            which = int(slot.kind == SOUND)
            out: npt.NDArray[Any] = draft.room[which][at[which] : at[which] + slot.size]
            at[which] += slot.size
            while True:
                try:
                    self._fill(slot, out, stats)
                    break
                except MovedError:
                    raise  # the row is created again
                except SampleError as error:
                    self._next(slot, error)
            stats.bad += slot.tries.unusable - slot.tries.removed
        stats.samples += len(request.slots) - 1
        draft.rows[row] = request.slots

    def join(self, draft: RowDraft) -> PackedBatch:
        """Finish the host batch."""
        slots = [slot for row in draft.rows for slot in row]
        counts = np.array([slot.size for slot in slots], np.int64)
        grid = np.array([slot.shape for slot in slots], np.int64).reshape(-1, 3)
        starts = _sums(counts)
        pixels, sounds = draft.room
        native, fields = self.natives[0].native, self.natives[0].fields
        return PackedBatch(
            tokens=torch.from_numpy(pixels),
            sounds=torch.from_numpy(sounds) if self._has_sounds else None,
            kind=torch.tensor([slot.kind for slot in slots], dtype=torch.int64),
            cu_seqlens=_cast_int32(starts),
            cu_rows=_cast_int32(_sums(np.array([len(row) for row in draft.rows], np.int64))),
            grid_thw=torch.from_numpy(grid),
            place=_cast_int32(_places(grid, counts, starts)),
            mask=self._masks(slots, starts),
            patch=native.patch,
            tubelet=native.tubelet,
            row_tokens=self.samples.room.tokens,
            longest=int(counts.max(initial=0)),
            key=[slot.item.key for slot in slots],
            label=torch.tensor([slot.label for slot in slots], dtype=torch.int64),
            fields=fields.collated([slot.fields for slot in slots], 1) if fields.fields else {},
        )

    def _alone(self, wanted: Wanted) -> PackedRow:
        part, own = find_part(self.samples.starts, int(wanted.indexes[0]))
        one = GlobalBatch(indexes=np.array([own]), epochs=wanted.epochs)
        progress = wanted.first.progress
        sizes = self.natives[part].at(progress).sizes(one)
        return PackedRow(
            indexes=wanted.indexes,
            epochs=one.epochs,
            shape=sizes.shape,
            visible=sizes.visible,
            pixels=int(sizes.pixels.sum()),
            progress=progress,
        )

    @property
    def _has_sounds(self) -> bool:
        return any(native.dtype == np.float32 for native in self.natives)

    def _slot(
        self, native: NativeSamples, left: Iterator[Wanted], shape: Shape, visible: int, crop: tuple[int, int]
    ) -> PackedSample:
        """Create a slot with the first usable candidate."""
        tries, own, error = Tries(0), True, None
        for wanted in left:
            try:
                item, plan = self._drawn(native, wanted, shape, crop if own else None)
            except SampleError as lacking:
                tries, own, error = tries.plus(lacking), False, lacking
                continue
            return PackedSample(
                native=native,
                shape=shape,
                visible=visible,
                left=left,
                item=item,
                label=int(native.manifest.label[item.index]),
                plan=plan,
                members=native.fields.members(item.index),
                tries=tries,
            )
        raise error or ValueError("a sample has no candidate")

    def _next(self, slot: PackedSample, error: SampleError) -> None:
        """Put the next usable candidate into a slot; `error` belongs to the previous one."""
        slot.tries = slot.tries.plus(error)
        for wanted in slot.left:
            try:
                slot.item, slot.plan = self._drawn(slot.native, wanted, slot.shape, None)
            except SampleError as lacking:
                slot.tries, error = slot.tries.plus(lacking), lacking
            else:
                index = slot.item.index
                slot.label, slot.members = int(slot.native.manifest.label[index]), slot.native.fields.members(index)
                return
        raise error

    def _drawn(
        self, native: NativeSamples, wanted: Wanted, shape: Shape, crop: tuple[int, int] | None
    ) -> tuple[Item, NativePlan]:
        _, own = find_part(self.samples.starts, int(wanted.indexes[0]))
        (item,) = Items(native.manifest, native.seed, 1, wanted.replaced([native.index(own)]))
        return item, native.plan(item, shape, crop)

    def _fill(self, slot: PackedSample, out: npt.NDArray[Any], stats: Stats) -> None:
        """Write the tokens of a slot and draw its mask."""
        item, native = slot.item, slot.native
        cues = slot.plan.fill(item, out, stats)
        if native.mask is not None:
            with stats.stage("mask"):
                slot.maps = native.maps(item, slot.shape, slot.visible, cues)
        slot.fields = native.fields.read(item, slot.plan, slot.members, stats)

    def _masks(self, slots: Sequence[PackedSample], starts: Int64s) -> PackedMask | None:
        maps = [slot.maps for slot in slots if slot.maps is not None]
        if not maps:
            return None
        masked = np.concatenate([one.hidden for one in maps])
        target = np.concatenate([one.hidden if one.target is None else one.target for one in maps])
        places = np.flatnonzero(target)
        counts = masked.copy()
        for slot, start, stop in zip(slots, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            counts[start + slot.plan.held : stop] = False
        seen, wanted = _sums(~masked)[starts], _sums(target)[starts]
        return PackedMask(
            masked=torch.from_numpy(masked),
            visible=torch.from_numpy(np.flatnonzero(~masked)),
            target=torch.from_numpy(places),
            weight=torch.from_numpy(counts[places].astype(np.float32)),
            cu_visible=_cast_int32(seen),
            cu_target=_cast_int32(wanted),
            longest=(int(np.diff(seen).max(initial=0)), int(np.diff(wanted).max(initial=0))),
        )


def _sums(counts: Int64s | Bools) -> Int64s:
    """Return the running sums of n counts, from 0: int64 (n + 1,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _cast_int32(values: Int64s) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32))


def _places(grid: Int64s, counts: Int64s, starts: Int64s) -> Int64s:
    """Return the position of each token along t, h and w, int64 (T, 3), for samples with grids int64 (S, 3)."""
    number = np.arange(int(starts[-1])) - np.repeat(starts[:-1], counts)
    height, width = (np.repeat(grid[:, axis], counts) for axis in (1, 2))
    return np.stack([number // (height * width), number // width % height, number % width], axis=1)
