"""Rows of images with texts: an image as in image batches, rows of texts, and the positions of phrases."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.masks.core import read_only
from maskstream.pipelines.masks.text.replace import TextMaps
from maskstream.pipelines.masks.text.words import PADDING as PADDED_WORD
from maskstream.pipelines.masks.text.words import SPECIAL as SPECIAL_WORD
from maskstream.pipelines.modalities.image.data import ImageData, ImagePlan
from maskstream.pipelines.modalities.rows import BatchRows, Item, Items, Masked, Memory, RowMaker, SampleRows, Traits
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s
from maskstream.shards.errors import SampleError
from maskstream.shards.stores.base import Range

from .batch import PADDING, ImageTextBatch, TextRows
from .places import BOXES, PlaceReader, Places, PlacesPlan
from .texts import RowPlan, RowReader

KERNELS = ("maskstream.pipelines.modalities.image.resize",)

PHRASE = "phrase"
_TRIES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TextView:
    """Texts of one view: its row, its target, and the text to match with a flag for the image's own text."""

    row: RowPlan
    target: RowPlan | None
    pair: RowPlan | None
    match: bool

    def ranges(self) -> Iterator[Range]:
        """Byte ranges to read."""
        for one in (self.row, self.target, self.pair):
            yield from () if one is None else one.ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextPlan:
    """Crops of a sample's image, texts of each view, and positions of its phrases."""

    image: ImagePlan
    views: tuple[TextView, ...]
    places: PlacesPlan

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges to read."""
        return (*self.image.ranges, *self.places.ranges, *(one for view in self.views for one in view.ranges()))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextRowMaker(RowMaker[ImageTextPlan, ImageTextBatch]):
    """Creates rows of images with texts.

    Both masks are drawn with the key of the sample, each with generators of its part (masks.Joint).
    """

    pictures: ImageData
    """Config of the images."""
    components: tuple[str, ...]
    """Components that contain the images."""
    texts: RowReader
    """Reader of the input texts."""
    target: RowReader | None
    """Reader of the texts to generate, or None."""
    second: tuple[RowReader, RowReader] | None
    """Readers of both for a second stage, or None."""
    places: PlaceReader
    grids: Mapping[str, TokenGrid]
    image_mask: Mask | None
    text_mask: Mask | None
    pairs: bool
    """Add a text for image-text matching to each view: its own or, with equal probability, one of a random other
    sample.
    """

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Masks of the image and of the texts."""
        return (
            Masked("image_mask", self.image_mask, self.grids["image"], "image"),
            Masked("text_mask", self.text_mask, self.grids["text"], "text", of=TextMaps.of),
        )

    @property
    def traits(self) -> Traits:
        """Identity of the images. Parts of mixtures must share the tokenizer and the target length; the number of
        visible tokens depends on the texts.
        """
        return Traits(
            identity=self.pictures.traits.identity,
            form={
                "tokenizer": self.texts.tokenizer.sha256,
                "target_length": 0 if self.target is None else self.target.length,
            },
            counted=False,
        )

    def plan(self, items: Items) -> list[ImageTextPlan]:
        """Draw crops and texts and find their byte ranges.

        Raises:
            SampleError: A sample lacks an image or a text.
        """
        return [
            ImageTextPlan(
                image=self.pictures.plan_of(item, self.components),
                views=tuple(self._texts(item, view) for view in range(item.views)),
                places=self.places.plan(item.index),
            )
            for item in items
        ]

    def layout(self, memory: Memory[ImageTextPlan]) -> ImageTextBatch:
        """Create the empty batch."""
        size = self.pictures.size
        return ImageTextBatch(
            image=self.pictures.layout(memory.of([plan.image for plan in memory.plans])).image,
            image_mask=None,
            text=_allocate_text_rows(memory, self.texts),
            text_mask=None,
            box=memory(np.float32, 4),
            segment=memory(np.bool_, size, size) if self.places.segments else None,
            target=None if self.target is None else _allocate_text_rows(memory, self.target),
            pair=_allocate_text_rows(memory, self.texts) if self.pairs else None,
            match=memory(np.bool_) if self.pairs else None,
            key=memory.key,
            label=memory.label,
        )

    def fill(self, rows: BatchRows[ImageTextPlan], batch: ImageTextBatch, stats: Stats) -> None:
        """Read the images and the texts of all views.

        Raises:
            SampleError: A sample is unusable.
        """
        self.pictures.fill(rows.of([plan.image for plan in rows.plans]), batch.pictures, stats)
        for item, plan, own in rows:
            places = self.places.read(plan.places, plan.image.width, plan.image.height, stats)
            for view, at in enumerate(range(own.start, own.stop)):
                texts = plan.views[view]
                self.texts.fill(texts.row, batch.text, at, own, stats)
                if self.target is not None and batch.target is not None and texts.target is not None:
                    self.target.fill(texts.target, batch.target, at, own, stats)
                if batch.pair is not None and batch.match is not None and texts.pair is not None:
                    self.texts.fill(texts.pair, batch.pair, at, own, stats)
                    same = np.array_equal(own.whole(batch.pair.tokens)[at], own.whole(batch.text.tokens)[at])
                    own.whole(batch.match)[at] = texts.match or same
                self._place(item, plan, places, view, batch, own)

    def cues(
        self, rows: BatchRows[ImageTextPlan], batch: ImageTextBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        """Return the image and the box of a row's phrase, or the words, roles and tokens of its texts.

        Raises:
            SampleError: A required box is missing.
        """
        row = rows.starts[n] + view
        if part == "image":
            frames = read_only(batch.image.numpy()[row][None]) if "frames" in needs else None
            box: Float32s | None = batch.box.numpy()[row] if "box" in needs else None
            if box is not None and np.isnan(box).any():
                reason = f"{self.image_mask} needs a box, and the row has no phrase with one"
                raise rows.items.manifest.sample_error(int(rows.items.wanted.indexes[n]), BOXES, reason)
            return Cues(frames=frames, box=box)
        roles = batch.text.roles.numpy()[row]
        words = batch.text.words.numpy()[row].astype(np.int64)
        words[words < 0] = SPECIAL_WORD
        words[roles == PADDING] = PADDED_WORD
        tokens = batch.text.tokens.numpy()[row].astype(np.int64)
        return Cues(words=words, classes=np.maximum(roles, -1).astype(np.int64), tokens=tokens)

    def _texts(self, item: Item, view: int) -> TextView:
        """Draw the texts of a view; a target has the same index among its role's texts as the row's text."""
        texts, target = self.texts, self.target
        if self.second is not None and item.rng("stage", view).random() < 0.5:
            texts, target = self.second
        row = texts.plan(item.index, item.rng("text", view))
        goal = None if target is None else target.plan(item.index, item.rng("text", view))
        pair, match = self._pair(item, view, row) if self.pairs else (None, False)
        return TextView(row=row, target=goal, pair=pair, match=match)

    def _pair(self, item: Item, view: int, own: RowPlan) -> tuple[RowPlan, bool]:
        """Draw the text to match, and whether it is the image's own; unusable other samples are redrawn."""
        rng, n = item.rng("pair", view), len(item.manifest)
        if n > 1 and rng.random() >= 0.5:
            for _ in range(_TRIES):
                other = int(rng.integers(n - 1))
                try:
                    return self.texts.plan(other + (other >= item.index), rng), False
                except SampleError:
                    continue
        return own, True

    def _place(
        self, item: Item, plan: ImageTextPlan, places: Places, view: int, batch: ImageTextBatch, own: SampleRows
    ) -> None:
        """Write the box and segment of a view's phrase; without one, NaN and no pixels."""
        boxes = own.of(batch.box)
        boxes[view] = np.nan
        if batch.segment is not None:
            own.of(batch.segment)[view] = False
        number, image = plan.views[view].row.choose_text(PHRASE), plan.image
        if number is None:
            return
        with item.manifest.reading(item.index, BOXES):
            box = places.box(number, image.crops[view], image.width, image.height)
            if box is not None:
                boxes[view] = box
            segment = places.segment(number, image.crops[view], self.pictures.size)
            if segment is not None and batch.segment is not None:
                own.of(batch.segment)[view] = segment


def _allocate_text_rows(memory: Memory[ImageTextPlan], reader: RowReader) -> TextRows:
    """Allocate the rows of a reader."""
    length = reader.length
    return TextRows(tokens=memory(np.int32, length), words=memory(np.int32, length), roles=memory(np.int8, length))
