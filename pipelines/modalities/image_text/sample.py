"""The sampler of images with texts: an image sampler, rows of texts, and the masks of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import DataError, SampleError
from ....shards.format.manifest import Manifest
from ....shards.media.npy import read_npy
from ....shards.stores.base import Announcement, Range
from ...augment.crop import Crop
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...masks.text.batch import TextMaps, TextMaskBatch
from ...masks.text.words import PADDING as PADDED_WORD
from ...masks.text.words import SPECIAL as SPECIAL_WORD
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from ..image.sample import ImageDraft, ImageRequest, ImageSampler
from .batch import PADDING, ImageTextBatch, TextRows
from .rows import RowMaker, RowRequest, RowsDraft

BOXES = "boxes.npy"
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
    """The draws of a sample: the crops of its image, and the texts of each view. boxes: where its boxes lie."""

    wanted: Wanted
    image: ImageRequest
    views: tuple[TextView, ...]
    boxes: Range | None

    @property
    def key(self) -> str:
        """The key of the sample."""
        return self.image.key

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        boxes = () if self.boxes is None else (self.boxes,)
        return (*self.image.ranges, *boxes, *(one for view in self.views for one in view.ranges()))


@dataclass(kw_only=True, slots=True)
class ImageTextDraft:
    """The memory of a batch of B views: images, rows, boxes float32 (B, 4), and the maps of both masks."""

    image: ImageDraft
    text: RowsDraft
    target: RowsDraft
    pair: RowsDraft
    match: npt.NDArray[np.bool_]
    box: npt.NDArray[np.float32]
    text_maps: list[TextMaps | None]


@dataclass(frozen=True, kw_only=True)
class ImageTextSampler:
    """Makes host batches of images with texts. It holds only settings, so it can be sent to worker processes.

    Every draw is a function of (seed, epoch, key, view). pictures: the sampler of the images, without a mask. rows: of
    the texts that are shown. target: of those that are to be written, or None. pairs: whether each view also has a text
    to judge, its own or, as often, that of a random other sample. image_mask, text_mask: both are drawn of one key,
    each with generators of its part (masks.Joint).
    """

    pictures: ImageSampler
    rows: RowMaker
    target: RowMaker | None
    grid: TokenGrid
    image_mask: Mask | None
    text_mask: Mask | None
    pairs: bool = False

    @property
    def manifest(self) -> Manifest:
        """That of the split."""
        return self.pictures.manifest

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.pictures.seed

    @property
    def needs_progress(self) -> bool:
        """Whether a mask depends on the progress of the run."""
        return any(mask is not None and mask.needs_progress for mask in (self.image_mask, self.text_mask))

    def request(self, wanted: Wanted) -> ImageTextRequest:
        """Draws crops and texts, and finds their byte ranges; raises SampleError if the sample lacks either."""
        image = self.pictures.request(wanted)
        component = self.manifest.components.get(BOXES)
        boxed = component is not None and bool(component.offset[wanted.index])
        return ImageTextRequest(
            wanted=wanted,
            image=image,
            views=tuple(self._texts(wanted, image.key, view) for view in range(self.pictures.views)),
            boxes=self.manifest.member(wanted.index, BOXES) if boxed else None,
        )

    def announce(self, request: ImageTextRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, rows: int) -> ImageTextDraft:
        """The memory of a batch of `rows` samples."""
        n = rows * self.pictures.views
        return ImageTextDraft(
            image=self.pictures.allocate(rows),
            text=RowsDraft.of(n, self.rows.length),
            target=RowsDraft.of(n, 0 if self.target is None else self.target.length),
            pair=RowsDraft.of(n, self.rows.length if self.pairs else 0),
            match=np.zeros(n, np.bool_),
            box=np.empty((n, 4), np.float32),
            text_maps=[None] * n,
        )

    def mask(self, request: ImageTextRequest, draft: ImageTextDraft, row: int) -> None:
        """Draws nothing: masks of texts need their words, those of images the boxes of the texts; `fill` reads both."""

    def fill(self, request: ImageTextRequest, draft: ImageTextDraft, row: int, stats: Stats) -> None:
        """Reads and decodes a row, and draws its masks; raises SampleError if the image or a text is unusable."""
        self.pictures.fill(request.image, draft.image, row, stats)
        boxes = self._boxes(request, stats)
        for view, texts in enumerate(request.views):
            at = row * self.pictures.views + view
            self.rows.fill(texts.row, draft.text, at, stats)
            if self.target is not None and texts.target is not None:
                self.target.fill(texts.target, draft.target, at, stats)
            if texts.pair is not None:
                self.rows.fill(texts.pair, draft.pair, at, stats)
                draft.match[at] = texts.match or np.array_equal(draft.pair.tokens[at], draft.text.tokens[at])
            draft.box[at] = self._box(request, texts, boxes, view)
            with stats.stage("mask"):
                self._draw(request, draft, at, view)

    def join(self, draft: ImageTextDraft) -> ImageTextBatch:
        """The host batch; the views of a sample are consecutive rows."""
        image = self.pictures.join(draft.image)
        maps = [one for one in draft.image.maps if one is not None]
        return ImageTextBatch(
            image=image.image,
            image_mask=None if self.image_mask is None else self.image_mask.batched(self.pictures.grid, maps),
            text=_rows(draft.text),
            text_mask=self._text_masks(draft),
            box=torch.from_numpy(draft.box),
            target=None if self.target is None else _rows(draft.target),
            pair=_rows(draft.pair) if self.pairs else None,
            match=torch.from_numpy(draft.match) if self.pairs else None,
            label=image.label,
            key=image.key,
        )

    def _texts(self, wanted: Wanted, key: str, view: int) -> TextView:
        """Draws the texts of a view; a target has the same place among its role's texts as the row."""
        row, target = (
            None if maker is None else maker.request(wanted.index, self._rng(wanted, key, view, "text"))
            for maker in (self.rows, self.target)
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

    def _boxes(self, request: ImageTextRequest, stats: Stats) -> npt.NDArray[np.float32] | None:
        """The boxes of a sample's phrases, float32 (n, 4); None without boxes."""
        if request.boxes is None:
            return None
        with self.manifest.reading(request.wanted.index, BOXES):
            with stats.stage("read"):
                (data,) = self.manifest.store.read_many((request.boxes,))
            boxes = read_npy(data)
            if boxes.dtype != np.float32 or boxes.ndim != 2 or boxes.shape[1] != 4:
                raise DataError(f"holds {boxes.dtype} {boxes.shape}, not float32 (n, 4)")
            if not ((boxes[:, :2] < boxes[:, 2:]).all() and (boxes >= 0).all() and (boxes <= 1).all()):
                raise DataError("has a box that is none: x0 < x1 and y0 < y1, as shares of the image")
        stats.read_bytes += len(data)
        return boxes

    def _box(
        self, request: ImageTextRequest, texts: TextView, boxes: npt.NDArray[np.float32] | None, view: int
    ) -> npt.NDArray[np.float32]:
        """The box of the phrase of a view, as shares of its crop; NaN without one."""
        number = texts.row.number_of(PHRASE)
        if number is None or boxes is None:
            return np.full(4, np.nan, np.float32)
        with self.manifest.reading(request.wanted.index, BOXES):
            if number >= len(boxes):
                raise DataError(f"has {len(boxes)} boxes and no box of phrase {number}")
        image = request.image
        return cropped_box(boxes[number], image.crops[view], image.width, image.height)

    def _draw(self, request: ImageTextRequest, draft: ImageTextDraft, at: int, view: int) -> None:
        """Draws the masks of a view."""
        wanted = request.wanted

        def draw(part: str, cues: Cues) -> Draw:
            return Draw.of(self.seed, wanted.epoch, request.key, view, wanted.place, cues, part=part)

        if self.image_mask is not None:
            box = None if np.isnan(draft.box[at]).any() else draft.box[at]
            if "box" in self.image_mask.needs and box is None:
                raise self.manifest.sample_error(
                    wanted.index, BOXES, f"{self.image_mask} needs a box, and the row has no phrase with one"
                )
            maps: Maps = self.image_mask.maps(self.pictures.grid, draw("image", Cues(box=box)))
            draft.image.maps[at] = maps
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


def cropped_box(box: npt.NDArray[np.float32], crop: Crop, width: int, height: int) -> npt.NDArray[np.float32]:
    """A box x0, y0, x1, y1, as shares of an image of width x height pixels, as shares of a crop, clipped to it."""
    x = (box[[0, 2]] * width - crop.x) / crop.width
    y = (box[[1, 3]] * height - crop.y) / crop.height
    if crop.flip:
        x = 1 - x[::-1]
    return np.array([x[0], y[0], x[1], y[1]], np.float32).clip(0, 1)


def _rows(draft: RowsDraft) -> TextRows:
    return TextRows(**{name: torch.from_numpy(getattr(draft, name)) for name in ("tokens", "words", "roles")})
