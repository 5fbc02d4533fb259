"""The sampler of images with texts: an image sampler, rows of texts, and the masks of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import SampleError
from ....shards.format.manifest import Manifest
from ....shards.stores.base import Announcement, Range
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...masks.text.batch import TextMaps, TextMaskBatch
from ...masks.text.words import PADDING as PADDED_WORD
from ...masks.text.words import SPECIAL as SPECIAL_WORD
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from ..image.batch import ImageBatch
from ..image.data import ImageData, ImagePlan
from ..rows import Item, Memory
from .batch import PADDING, ImageTextBatch, TextRows
from .places import BOXES, PlaceReader, Places, PlacesRequest
from .rows import RowMaker, RowRequest, RowsDraft

PHRASE = "phrase"
_TRIES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TextView:
    """The texts of one view: its row, that of the target, and the text that is judged, with whether it is the own."""

    row: RowRequest
    target: RowRequest | None
    pair: RowRequest | None
    match: bool

    def ranges(self) -> Iterator[Range]:
        """All that is read."""
        for one in (self.row, self.target, self.pair):
            yield from () if one is None else one.ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextRequest:
    """The draws of a sample: the crops of its image, and the texts of each view. places: those of its phrases."""

    item: Item
    image: ImagePlan
    views: tuple[TextView, ...]
    places: PlacesRequest

    @property
    def key(self) -> str:
        """The key of the sample."""
        return self.item.shown.key

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return (*self.image.ranges, *self.places.ranges, *(one for view in self.views for one in view.ranges()))


@dataclass(kw_only=True, slots=True)
class ImageTextDraft:
    """The memory of a batch of B views: images, rows, boxes float32 (B, 4), segments bool (B, size, size), or (B, 0, 0)
    where none are asked for, and the maps of both masks.
    """

    image: ImageBatch
    image_maps: list[Maps | None]
    text: RowsDraft
    target: RowsDraft
    pair: RowsDraft
    match: npt.NDArray[np.bool_]
    box: npt.NDArray[np.float32]
    segment: npt.NDArray[np.bool_]
    text_maps: list[TextMaps | None]


@dataclass(frozen=True, kw_only=True)
class ImageTextSampler:
    """Makes host batches of images with texts. It holds only settings, so it can be sent to worker processes.

    Every draw is a function of (seed, epoch, key, view). pictures: the sampler of the images, without a mask. rows: of
    the texts that are shown. target: of those that are to be written, or None. pairs: whether each view also has a text
    to judge, its own or, as often, that of a random other sample. image_mask, text_mask: both are drawn of one key,
    each with generators of its part (masks.Joint).
    """

    pictures: ImageData
    components: tuple[str, ...]
    manifest: Manifest
    seed: int
    rows: RowMaker
    target: RowMaker | None
    grid: TokenGrid
    image_mask: Mask | None
    text_mask: Mask | None
    places: PlaceReader
    second: tuple[RowMaker, RowMaker] | None = None
    pairs: bool = False

    @property
    def needs_progress(self) -> bool:
        """Whether a mask depends on the progress of the run."""
        return any(mask is not None and mask.needs_progress for mask in (self.image_mask, self.text_mask))

    def request(self, wanted: Wanted) -> ImageTextRequest:
        """Draws crops and texts, and finds their byte ranges; raises SampleError if the sample lacks either."""
        item = Item(
            manifest=self.manifest,
            seed=self.seed,
            views=self.pictures.views,
            index=wanted.index,
            epoch=wanted.epoch,
            place=wanted.place,
            shown=self.pictures.shown(self.manifest, wanted.index),
        )
        return ImageTextRequest(
            item=item,
            image=self.pictures.plan_of(item, self.components),
            views=tuple(self._texts(wanted, item.shown.key, view) for view in range(self.pictures.views)),
            places=self.places.request(wanted.index),
        )

    def announce(self, request: ImageTextRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[object]) -> ImageTextDraft:
        """The memory of a batch of some requests."""
        n = len(requests) * self.pictures.views
        side = self.pictures.size if self.places.segments else 0
        return ImageTextDraft(
            image=self.pictures.layout(Memory([], n)),
            image_maps=[None] * n,
            text=RowsDraft.of(n, self.rows.length),
            target=RowsDraft.of(n, 0 if self.target is None else self.target.length),
            pair=RowsDraft.of(n, self.rows.length if self.pairs else 0),
            match=np.zeros(n, np.bool_),
            box=np.empty((n, 4), np.float32),
            segment=np.empty((n, side, side), np.bool_),
            text_maps=[None] * n,
        )

    def mask(self, request: ImageTextRequest, draft: ImageTextDraft, row: int) -> None:
        """Draws nothing: masks of texts need their words, those of images the boxes of the texts; `fill` reads both."""

    def fill(self, request: ImageTextRequest, draft: ImageTextDraft, row: int, stats: Stats) -> None:
        """Reads and decodes a row, and draws its masks; raises SampleError if the image or a text is unusable."""
        item, image = request.item, request.image
        own = slice(row * self.pictures.views, (row + 1) * self.pictures.views)
        self.pictures.fill(item, image, draft.image, own, stats)
        draft.image.label.numpy()[own] = self.manifest.label[item.index]
        draft.image.key[own] = [item.shown.key] * self.pictures.views
        places = self.places.read(request.places, image.width, image.height, stats)
        for view, texts in enumerate(request.views):
            at = row * self.pictures.views + view
            self.rows.fill(texts.row, draft.text, at, stats)
            if self.target is not None and texts.target is not None:
                self.target.fill(texts.target, draft.target, at, stats)
            if texts.pair is not None:
                self.rows.fill(texts.pair, draft.pair, at, stats)
                draft.match[at] = texts.match or np.array_equal(draft.pair.tokens[at], draft.text.tokens[at])
            self._place(request, texts, places, view, draft, at)
            with stats.stage("mask"):
                self._draw(request, draft, at, view)

    def join(self, draft: ImageTextDraft) -> ImageTextBatch:
        """The host batch; the views of a sample are consecutive rows."""
        image = draft.image
        maps = [one for one in draft.image_maps if one is not None]
        return ImageTextBatch(
            image=image.image,
            image_mask=None if self.image_mask is None else self.image_mask.batched(self.pictures.grids["image"], maps),
            text=_rows(draft.text),
            text_mask=self._text_masks(draft),
            box=torch.from_numpy(draft.box),
            segment=torch.from_numpy(draft.segment) if self.places.segments else None,
            target=None if self.target is None else _rows(draft.target),
            pair=_rows(draft.pair) if self.pairs else None,
            match=torch.from_numpy(draft.match) if self.pairs else None,
            label=image.label,
            key=image.key,
        )

    def _texts(self, wanted: Wanted, key: str, view: int) -> TextView:
        """Draws the texts of a view; a target has the same place among its role's texts as the row."""
        rows, goal = self.rows, self.target
        if self.second is not None and self._rng(wanted, key, view, "stage").random() < 0.5:
            rows, goal = self.second
        row, target = (
            None if maker is None else maker.request(wanted.index, self._rng(wanted, key, view, "text"))
            for maker in (rows, goal)
        )
        assert row is not None
        pair, match = self._pair(wanted, key, view, row) if self.pairs else (None, False)
        return TextView(row=row, target=target, pair=pair, match=match)

    def _pair(self, wanted: Wanted, key: str, view: int, own: RowRequest) -> tuple[RowRequest, bool]:
        """The text to judge, and whether it is the own; another sample that cannot be used is drawn again."""
        rng, n = self._rng(wanted, key, view, "pair"), len(self.manifest)
        if n > 1 and rng.random() >= 0.5:
            for _ in range(_TRIES):
                other = int(rng.integers(n - 1))
                try:
                    return self.rows.request(other + (other >= wanted.index), rng), False
                except SampleError:
                    continue
        return own, True

    def _rng(self, wanted: Wanted, key: str, view: int, purpose: str) -> np.random.Generator:
        return sample_rng(self.seed, wanted.epoch, key, view, purpose)

    def _place(
        self, request: ImageTextRequest, texts: TextView, places: Places, view: int, draft: ImageTextDraft, at: int
    ) -> None:
        """Writes the box and the segment of the phrase of a view: NaN and no pixel without one."""
        draft.box[at], draft.segment[at] = np.nan, False
        number, image = texts.row.number_of(PHRASE), request.image
        if number is None:
            return
        with self.manifest.reading(request.item.index, BOXES):
            box = places.box(number, image.crops[view], image.width, image.height)
            if box is not None:
                draft.box[at] = box
            segment = places.segment(number, image.crops[view], self.pictures.size)
            if segment is not None:
                draft.segment[at] = segment

    def _draw(self, request: ImageTextRequest, draft: ImageTextDraft, at: int, view: int) -> None:
        """Draws the masks of a view."""
        item = request.item

        def draw(part: str, cues: Cues) -> Draw:
            return item.draw(view, cues, part)

        if self.image_mask is not None:
            box = None if np.isnan(draft.box[at]).any() else draft.box[at]
            if "box" in self.image_mask.needs and box is None:
                raise self.manifest.sample_error(
                    item.index, BOXES, f"{self.image_mask} needs a box, and the row has no phrase with one"
                )
            maps: Maps = self.image_mask.maps(self.pictures.grids["image"], draw("image", Cues(box=box)))
            draft.image_maps[at] = maps
        if self.text_mask is not None:
            roles = draft.text.roles[at]
            words = draft.text.words[at].astype(np.int64)
            words[words < 0] = SPECIAL_WORD
            words[roles == PADDING] = PADDED_WORD
            classes, tokens = np.maximum(roles, -1).astype(np.int64), draft.text.tokens[at].astype(np.int64)
            cues = Cues(words=words, classes=classes, tokens=tokens)
            draft.text_maps[at] = TextMaps.of(self.text_mask.maps(self.grid, draw("text", cues)))

    def _text_masks(self, draft: ImageTextDraft) -> TextMaskBatch | None:
        if self.text_mask is None:
            return None
        batch = self.text_mask.batched(self.grid, [one for one in draft.text_maps if one is not None])
        assert isinstance(batch, TextMaskBatch)
        return batch


def _rows(draft: RowsDraft) -> TextRows:
    return TextRows(**{name: torch.from_numpy(getattr(draft, name)) for name in ("tokens", "words", "roles")})
