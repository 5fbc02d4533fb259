"""Makes batches of packed rows: a row is filled sample by sample, and replaces its unusable samples itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.masks import Maps, Mask
from maskstream.pipelines.masks.patterns.random import adjusted
from maskstream.pipelines.modalities.fields import FieldReader, Value
from maskstream.pipelines.modalities.image.data import ImagePlan
from maskstream.pipelines.modalities.rows import Item, Shown
from maskstream.pipelines.stream.kept import empty
from maskstream.pipelines.stream.order import GlobalBatch, PackedRow
from maskstream.pipelines.stream.produce import Tries, candidates
from maskstream.pipelines.stream.row_order import RowSamples
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Announcement, Range

from .batch import PackedBatch, PackedMask
from .pictures import NativePictures, picture_grid

Int64s = npt.NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class PackedSample:
    """A sample's place in a row: what it holds there is fixed, which sample it shows is not.

    rows, columns, visible: its patches, and how many the encoder sees. crop: the width and height of the crop of the
    first candidate. tries: the unusable candidates before `item`.
    """

    rows: int
    columns: int
    visible: int
    crop: tuple[int, int] | None
    left: Iterator[Wanted]
    item: Item
    plan: ImagePlan
    members: dict[str, Range]
    tries: Tries = field(default_factory=lambda: Tries(0))
    maps: Maps | None = None
    fields: dict[str, Value] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Its tokens."""
        return self.rows * self.columns


@dataclass(frozen=True, kw_only=True, slots=True)
class RowRequest:
    """The samples of a row, as they were drawn; `key` names the row by its first sample."""

    slots: list[PackedSample]

    @property
    def key(self) -> str:
        """The key of the first sample."""
        return self.slots[0].item.shown.key if self.slots else ""

    @property
    def ranges(self) -> Sequence[Range]:
        """All that is read of the split."""
        return [one for slot in self.slots for one in (*slot.plan.ranges, *slot.members.values())]


@dataclass(kw_only=True, slots=True)
class RowDraft:
    """The tokens of a batch, uint8 (T, n), where each row begins in them, int64 (R + 1,), and the rows' samples."""

    tokens: npt.NDArray[np.uint8]
    starts: Int64s
    rows: list[list[PackedSample]]


@dataclass(frozen=True, kw_only=True)
class PackedSampler:
    """Makes host batches of packed rows. Every draw is a function of (seed, epoch, key, view, purpose)."""

    pictures: NativePictures
    samples: RowSamples
    mask_of: Mask | None
    fields: FieldReader

    @property
    def manifest(self) -> Manifest:
        """The manifest of the split."""
        return self.pictures.manifest

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.pictures.seed

    @property
    def needs_progress(self) -> bool:
        """Never: the counts of a row are planned without the progress of the run."""
        return False

    @property
    def together(self) -> int:
        """One row at a time: it has many samples."""
        return 1

    def requests(self, wanted: Sequence[Wanted]) -> list[RowRequest]:
        """The requests of some rows; a request holds the samples of a row, of which those that it shows to be unusable
        are replaced. Where no row is wanted, it is sample `index` alone with unscaled counts, which nothing replaces.
        """
        return [self._request(one) for one in wanted]

    def _request(self, wanted: Wanted) -> RowRequest:
        row = self._alone(wanted) if wanted.packed is None else wanted.packed
        crops = self.pictures.crops(GlobalBatch(indexes=row.indexes, epochs=row.epochs))
        slots = []
        for index, epoch, (_, rows, columns), visible, wide, tall in zip(
            row.indexes.tolist(),
            row.epochs.tolist(),
            row.shape.tolist(),
            row.visible.tolist(),
            crops.width.tolist(),
            crops.height.tolist(),
            strict=True,
        ):
            first = Wanted(index=index, epoch=epoch, place=wanted.place)
            left = iter([first])
            if wanted.packed is not None:
                left = candidates(first, self.seed, self.samples.reserve)
            slots.append(self._slot(left, rows, columns, visible, (wide, tall)))
        return RowRequest(slots=slots)

    def announce(self, request: RowRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[RowRequest]) -> RowDraft:
        """The memory of the batch of some requests."""
        sizes = [sum(slot.size for slot in request.slots) for request in requests]
        starts = np.cumsum([0, *sizes])
        native = self.pictures.native
        tokens = empty((int(starts[-1]), native.tubelet * native.patch**2 * 3), np.uint8)
        return RowDraft(tokens=tokens, starts=starts, rows=[[] for _ in requests])

    def mask(self, request: RowRequest, draft: RowDraft, row: int) -> None:
        """Nothing: a sample that is replaced has another mask, so `fill` draws it."""

    def fill(self, requests: Sequence[RowRequest], draft: RowDraft, rows: Sequence[int], stats: Stats) -> None:
        """Fills rows. An unusable sample is replaced by another, in its shape; SampleError where none is left."""
        for request, row in zip(requests, rows, strict=True):
            self._fill_row(request, draft, row, stats)

    def _fill_row(self, request: RowRequest, draft: RowDraft, row: int, stats: Stats) -> None:
        at = int(draft.starts[row])
        for slot in request.slots:
            out = draft.tokens[at : at + slot.size]
            at += slot.size
            while True:
                try:
                    self._fill(slot, out, stats)
                    break
                except SampleError as error:
                    self._next(slot, error)
            stats.bad += slot.tries.unusable - slot.tries.removed
        stats.samples += len(request.slots) - 1
        draft.rows[row] = request.slots

    def join(self, draft: RowDraft) -> PackedBatch:
        """The host batch."""
        slots = [slot for row in draft.rows for slot in row]
        counts = np.array([slot.size for slot in slots], np.int64)
        grid = np.array([(1, slot.rows, slot.columns) for slot in slots], np.int64).reshape(-1, 3)
        shown = [slot.item.shown for slot in slots]
        starts = _sums(counts)
        return PackedBatch(
            tokens=torch.from_numpy(draft.tokens),
            cu_seqlens=_int32(starts),
            cu_rows=_int32(_sums(np.array([len(row) for row in draft.rows], np.int64))),
            grid_thw=torch.from_numpy(grid),
            place=_int32(_places(grid, counts, starts)),
            mask=self._masks(slots, starts),
            patch=self.pictures.native.patch,
            tubelet=self.pictures.native.tubelet,
            row_tokens=self.samples.room.tokens,
            key=[one.key for one in shown],
            label=torch.tensor([one.label for one in shown], dtype=torch.int64),
            fields=self.fields.collated([slot.fields for slot in slots], 1) if self.fields.fields else {},
        )

    def _alone(self, wanted: Wanted) -> PackedRow:
        one = GlobalBatch(indexes=np.array([wanted.index]), epochs=np.array([wanted.epoch]))
        sizes = self.pictures.sizes(one)
        return PackedRow(indexes=one.indexes, epochs=one.epochs, shape=sizes.shape, visible=sizes.visible)

    def _slot(
        self, left: Iterator[Wanted], rows: int, columns: int, visible: int, crop: tuple[int, int]
    ) -> PackedSample:
        """The slot of the first usable candidate."""
        tries, own, error = Tries(0), True, None
        for wanted in left:
            try:
                item, plan, members = self._drawn(wanted, rows, columns, crop if own else None)
            except SampleError as lacking:
                tries, own, error = tries.plus(lacking), False, lacking
                continue
            return PackedSample(
                rows=rows,
                columns=columns,
                visible=visible,
                crop=crop,
                left=left,
                item=item,
                plan=plan,
                members=members,
                tries=tries,
            )
        raise error or ValueError("a sample has no candidate")

    def _next(self, slot: PackedSample, error: SampleError) -> None:
        """Shows the next usable candidate in a slot; `error` is that of the one before it."""
        slot.tries = slot.tries.plus(error)
        for wanted in slot.left:
            try:
                slot.item, slot.plan, slot.members = self._drawn(wanted, slot.rows, slot.columns, None)
            except SampleError as lacking:
                slot.tries, error = slot.tries.plus(lacking), lacking
            else:
                return
        raise error

    def _drawn(
        self, wanted: Wanted, rows: int, columns: int, crop: tuple[int, int] | None
    ) -> tuple[Item, ImagePlan, dict[str, Range]]:
        key = self.manifest.key(wanted.index)
        item = Item(
            manifest=self.manifest,
            seed=self.seed,
            views=1,
            index=wanted.index,
            epoch=wanted.epoch,
            place=wanted.place,
            shown=Shown(key, int(self.manifest.label[wanted.index]), key),
        )
        return item, self.pictures.plan(item, rows, columns, crop), self.fields.members(wanted.index)

    def _fill(self, slot: PackedSample, out: npt.NDArray[np.uint8], stats: Stats) -> None:
        """Writes the tokens of a slot, and draws its mask."""
        item = slot.item
        self.pictures.fill(item, slot.plan, slot.rows, slot.columns, out, stats)
        if self.mask_of is not None:
            with stats.stage("mask"):
                grid = picture_grid(slot.rows, slot.columns, self.pictures.native.patch)
                maps = self.mask_of.maps(grid, item.draw(0))
                hidden = adjusted(maps.hidden, slot.visible, item.rng("row mask"))
                slot.maps = Maps(hidden=hidden, target=maps.target)
        slot.fields = self.fields.read(item.index, slot.plan, slot.members, stats)

    def _masks(self, slots: Sequence[PackedSample], starts: Int64s) -> PackedMask | None:
        maps = [slot.maps for slot in slots if slot.maps is not None]
        if not maps:
            return None
        masked = np.concatenate([one.hidden for one in maps])
        target = np.concatenate([one.hidden if one.target is None else one.target for one in maps])
        places = np.flatnonzero(target)
        return PackedMask(
            masked=torch.from_numpy(masked),
            visible=torch.from_numpy(np.flatnonzero(~masked)),
            target=torch.from_numpy(places),
            weight=torch.from_numpy(masked[places].astype(np.float32)),
            cu_visible=_int32(_sums(~masked)[starts]),
            cu_target=_int32(_sums(target)[starts]),
        )


def _sums(counts: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Int64s:
    """The running sums of n counts, from 0 on: int64 (n + 1,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _int32(values: Int64s) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32))


def _places(grid: Int64s, counts: Int64s, starts: Int64s) -> Int64s:
    """The place of each token along t, h and w, int64 (T, 3), of samples whose grids are int64 (S, 3)."""
    number = np.arange(int(starts[-1])) - np.repeat(starts[:-1], counts)
    height, width = (np.repeat(grid[:, axis], counts) for axis in (1, 2))
    return np.stack([number // (height * width), number // width % height, number % width], axis=1)
