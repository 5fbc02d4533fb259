"""Rows of texts: finds the documents of a row, reads their tokens, words and classes, and gives the mask its cues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.masks.text.replace import TextMaps
from maskstream.pipelines.masks.text.words import PADDING, SPECIAL
from maskstream.pipelines.modalities.rows import Item, Masked, Memory, Planned, RowMaker, SampleRows, Shown
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.text.packing import token_dtype, token_range
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.pipelines.stream.sampler import Visible
from maskstream.pipelines.stream.samples import Samples
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import DataError, RemovedError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TokenizerFacts
from maskstream.shards.stores.base import Range

from .batch import N_CLASSES, NO_CLASS, TextBatch, Unpadded
from .packing import Packing
from .token_scores import TokenScores

TOKENS, WORDS, CLASSES = "tokens.npy", "words.npy", "classes.npy"
NONE = Unpadded.of(np.empty((0, 1), np.int32), np.empty((0, 1), np.int32))
"""No tokens, before `join` finds those of a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a document: its sample, its `count` tokens from number `first` on, and where their values lie."""

    sample: int
    first: int
    count: int
    ranges: tuple[Range, ...]


class FilledRow(NamedTuple):
    """A filled row of `TextBatch`, int32 (L,) each, and uint8 (L,) its classes."""

    tokens: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int32]
    words: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8] | None


@dataclass(kw_only=True, slots=True)
class TextPlan:
    """The pieces of a row, in order, and the row that `fill` made of them: cues read it there, since `Tensor.numpy`
    costs more than a row of numbers.
    """

    pieces: tuple[Piece, ...]
    row: FilledRow | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return tuple(one for piece in self.pieces for one in piece.ranges)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRowMaker(RowMaker[TextPlan, TextBatch]):
    """Makes rows of texts. An item's index is the number of a row, which is that of its sample where it has only one.

    tokenizer: the ids of special tokens. packing: the rows. components: the members that are read, of `tokens.npy`,
    `words.npy` and `classes.npy`. windows: whether a document that is too long shows a random window instead of its
    beginning. shares: whether rows hold several documents. scores: of tokens, for the mask; only with one document a
    row and without windows.
    """

    tokenizer: TokenizerFacts
    packing: Packing
    components: tuple[str, ...]
    grid: TokenGrid
    mask: Mask | None
    windows: bool
    shares: bool
    scores: TokenScores | None
    together: ClassVar[int] = 8

    @property
    def masks(self) -> tuple[Masked, ...]:
        """The mask of the tokens."""
        return (Masked("mask", self.mask, self.grid, of=TextMaps.of),)

    @property
    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens before and behind a document."""
        return _given(self.tokenizer.begin), _given(self.tokenizer.end)

    @property
    def form(self) -> Mapping[str, object]:
        """The tokenizer, and whether there are classes."""
        return {"tokenizer": self.tokenizer.sha256, "classes": CLASSES in self.components}

    @property
    def visible(self) -> Visible | None:
        """None: the number of visible tokens follows the texts."""
        return None

    def samples(self, split: Split) -> Samples:
        """The rows in place of the samples."""
        return replace(split.samples, shard_sizes=tuple(self.packing.shard_rows.tolist()))

    def shown(self, manifest: Manifest, index: int) -> Shown:
        """A packed row has the key of its first document that is not removed, no label, and draws of its own."""
        if not self.shares:  # a row for each sample, with its number
            key = manifest.key(index)
            return Shown(key, int(manifest.label[index]), key)
        pieces = self.packing.row(index)
        there = pieces if not len(manifest.removed) else [one for one in pieces if not manifest.is_removed(one[0])]
        sample, first, _ = (there or pieces)[0]
        key = manifest.key(sample)
        return Shown(key, -1, f"{key} {first}")

    def plan(self, item: Item) -> TextPlan:
        """Finds the documents of a row and their byte ranges; raises SampleError if none of them is there."""
        pieces, removed = [], None
        for sample, first, count in self.packing.row(item.index):
            try:
                pieces.append(self._piece(item, sample, first, count))
            except RemovedError as error:
                removed = error
        if not pieces:
            raise removed or ValueError(f"row {item.index} has no documents; packing.py makes no such row")
        return TextPlan(pieces=tuple(pieces))

    def layout(self, memory: Memory[TextPlan]) -> TextBatch:
        """The empty batch; `join` makes what follows from the tokens."""
        length = self.grid.size
        return TextBatch(
            tokens=memory(np.int32, length),
            lengths=NONE.tokens,
            documents=memory(np.int32, length),
            words=memory(np.int32, length),
            classes=memory(np.uint8, length) if CLASSES in self.components else None,
            mask=None,
            unpadded=NONE,
            key=memory.key,
            label=memory.label,
        )

    def fill(self, item: Item, plan: TextPlan, batch: TextBatch, own: SampleRows, stats: Stats) -> None:
        """Reads the documents of a row, the same for all views; raises SampleError if one is unusable."""
        at = own.start
        tokens, documents, words = (own.whole(one)[at] for one in (batch.tokens, batch.documents, batch.words))
        classes = None if batch.classes is None else own.whole(batch.classes)[at]
        begin, end = self.ends
        tokens[:], documents[:], words[:] = self.tokenizer.pad or 0, -1, -1
        if classes is not None:
            classes[:] = NO_CLASS
        plan.row = FilledRow(tokens, documents, words, classes)
        place, last = 0, 0
        for number, piece in enumerate(plan.pieces):
            with item.manifest.reading(piece.sample, self.components[0]):
                read = item.read(piece.ranges, stats)
            with stats.stage("convert"):
                values = self._values(item.manifest, piece, read)
                inside = slice(place + len(begin), place + len(begin) + piece.count)
                documents[place : inside.stop + len(end)] = number
                tokens[place : inside.start] = begin
                tokens[inside] = values[TOKENS]
                tokens[inside.stop : inside.stop + len(end)] = end
                numbers = values.get(WORDS, np.arange(piece.count))
                words[inside] = numbers - numbers[0] + last
                last += int(numbers[-1] - numbers[0]) + 1
                if classes is not None:
                    classes[inside] = values[CLASSES]
                place = inside.stop + len(end)
        if item.views > 1:
            for rows in (batch.tokens, batch.documents, batch.words, batch.classes):
                if rows is not None:
                    own.of(rows)[1:] = own.of(rows)[0]

    def cues(self, item: Item, plan: TextPlan, batch: TextBatch, row: int, part: str, needs: frozenset[str]) -> Cues:
        """The words, classes, scores and tokens of a row."""
        assert plan.row is not None
        words = plan.row.words.astype(np.int64)
        words[words < 0] = SPECIAL
        words[plan.row.documents < 0] = PADDING
        classes = scores = None
        if plan.row.classes is not None:
            classes = plan.row.classes.astype(np.int64)
            classes[classes == NO_CLASS] = -1
        if self.scores is not None:
            begin = len(self.ends[0])
            scores = self.scores.in_row(item.shown.key, begin, plan.pieces[0].count, self.grid.size)
        return Cues(words=words, classes=classes, scores=scores, tokens=plan.row.tokens.astype(np.int64))

    def join(self, batch: TextBatch, planned: Sequence[Planned[TextPlan]]) -> TextBatch:
        """The batch with its lengths, and without padding."""
        documents = batch.documents.numpy()
        lengths = torch.from_numpy((documents >= 0).sum(1, dtype=np.int32))
        return replace(batch, lengths=lengths, unpadded=Unpadded.of(batch.tokens.numpy(), documents))

    def _piece(self, item: Item, sample: int, first: int, count: int) -> Piece:
        """A part of a document, cut to a window if it does not fit into a row."""
        manifest, most = item.manifest, self.grid.size - sum(map(len, self.ends))
        if count > most:
            rng = sample_rng(item.seed, item.epoch, manifest.key(sample), 0, "window")
            drawn = int(rng.integers(count - most + 1))
            first, count = first + (drawn if self.windows else 0), most
        ranges = tuple(token_range(manifest, sample, name, first, count) for name in self.components)
        return Piece(sample=sample, first=first, count=count, ranges=ranges)

    def _values(self, manifest: Manifest, piece: Piece, read: Sequence[bytes]) -> dict[str, npt.NDArray[np.int64]]:
        """The values of a piece by component; SampleError for some that are none."""
        values = {}
        for name, data in zip(self.components, read, strict=True):
            with manifest.reading(piece.sample, name):
                values[name] = np.frombuffer(data, token_dtype(manifest, piece.sample, name)).astype(np.int64)
                self._check(name, values[name])
        return values

    def _check(self, name: str, values: npt.NDArray[np.int64]) -> None:
        """DataError for values that are none."""
        if name == TOKENS and values.max() >= self.tokenizer.vocabulary:
            raise DataError(f"has the id {values.max()}; its tokenizer has {self.tokenizer.vocabulary}")
        if name == WORDS and (np.diff(values) & ~1).any():  # steps of neither 0 nor 1
            raise DataError("has words whose numbers do not ascend by one")
        if name == CLASSES and (wrong := values[(values >= N_CLASSES) & (values != NO_CLASS)]).size:
            raise DataError(f"has the class {wrong[0]}; legal are 0 to {N_CLASSES - 1}, and {NO_CLASS} for none")


def _given(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
