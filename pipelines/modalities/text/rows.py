"""Rows of texts: finds the documents of a row, reads their tokens, words and classes, and gives the mask its cues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.masks.text.replace import TextMaps
from maskstream.pipelines.masks.text.words import PADDING, SPECIAL
from maskstream.pipelines.modalities.rows import Filling, Item, Masked, Memory, Planned, RowMaker, SampleRows, Shown
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.rng import sample_rngs
from maskstream.pipelines.stream.sampler import Visible
from maskstream.pipelines.stream.samples import Samples
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import DataError, SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TokenizerFacts
from maskstream.shards.stores.base import Range

from .batch import N_CLASSES, NO_CLASS, TextBatch, Unpadded
from .packing import Int64s, Packing, token_range, token_ranges
from .token_scores import TokenScores

TOKENS, WORDS, CLASSES = "tokens.npy", "words.npy", "classes.npy"
NONE = Unpadded.of(np.empty((0, 1), np.int32), np.empty((0, 1), np.int32))
"""No tokens, before `join` finds those of a batch."""


class Piece(NamedTuple):
    """A part of a document: its sample, the number of its tokens, and where the values of each component lie."""

    sample: int
    tokens: int
    ranges: tuple[Range, ...]


class FilledRow(NamedTuple):
    """A filled row as masks want it: int64 (L,), its words, `SPECIAL` and `PADDING` among them; int32 (L,), its tokens,
    and uint8 (L,), its classes, as the batch has them.
    """

    words: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8] | None


@dataclass(kw_only=True, slots=True)
class TextPlan:
    """The pieces of a row, in order, and the row that `fill` made of them: cues read it there, since `Tensor.numpy`
    costs more than a row of numbers.
    """

    pieces: list[Piece] = field(default_factory=list)
    row: FilledRow | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        if len(self.pieces) == 1:
            return self.pieces[0].ranges
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

    @property
    def together(self) -> int:
        """Many samples."""
        return 32

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

    def shown_all(self, manifest: Manifest, indexes: Sequence[int]) -> list[Shown]:
        """A packed row has the key of its first document that is not removed, no label, and draws of its own."""
        if not self.shares:  # a row for each sample, with its number
            return RowMaker.shown_all(self, manifest, indexes)
        return [self._packed(manifest, index) for index in indexes]

    def _packed(self, manifest: Manifest, index: int) -> Shown:
        pieces = self.packing.row(index)
        there = pieces if not len(manifest.removed) else [one for one in pieces if not manifest.is_removed(one[0])]
        sample, first, _ = (there or pieces)[0]
        key = manifest.key(sample)
        return Shown(key, -1, f"{key} {first}")

    def plan(self, item: Item) -> TextPlan:
        """That of one row."""
        return self.plan_all([item])[0]

    def plan_all(self, items: Sequence[Item]) -> list[TextPlan]:
        """Finds the documents of rows and their byte ranges; raises SampleError if none of a row's is there."""
        manifest = items[0].manifest
        row, number = self.packing.rows(np.array([item.index for item in items]))
        sample, first, count = self.packing.sample[number], self.packing.first[number], self.packing.count[number]
        if len(manifest.removed):
            there = ~np.isin(sample, manifest.removed)
            for gone in np.setdiff1d(np.arange(len(items)), row[there]).tolist():
                raise manifest.sample_error(int(sample[row == gone][-1]), self.components[0], "it was removed")
            row, sample, first, count = row[there], sample[there], first[there], count[there]
        most = self.grid.size - sum(map(len, self.ends))
        if self.windows and (long := np.flatnonzero(count > most)).size:
            first = first.copy()
            first[long] += self._windows(items, row[long].tolist(), sample[long].tolist(), count[long] - most + 1)
        count = np.minimum(count, most)
        try:
            found = [token_ranges(manifest, sample, name, first, count) for name in self.components]
        except SampleError:
            for piece in zip(sample.tolist(), first.tolist(), count.tolist(), strict=True):
                self._check_piece(manifest, *piece)
            raise
        ranges = zip(*found, strict=True)
        plans = [TextPlan() for _ in items]
        for at, *made in zip(row.tolist(), sample.tolist(), count.tolist(), ranges, strict=True):
            plans[at].pieces.append(Piece(*made))
        return plans

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
        """Fills one row."""
        self.fill_all([Filling(item, plan, own)], batch, stats)

    def fill_all(self, filling: Sequence[Filling[TextPlan]], batch: TextBatch, stats: Stats) -> None:
        """Reads the documents of rows, the same for all views; raises SampleError if one is unusable."""
        manifest, own = filling[0].item.manifest, filling[0].own
        pieces = [piece for one in filling for piece in one.plan.pieces]
        values = self._values(manifest, pieces, stats)
        with stats.stage("convert"):
            whole = [own.whole(one) for one in (batch.tokens, batch.documents, batch.words)]
            empty = [self.tokenizer.pad or 0, -1, -1]
            if batch.classes is not None:
                whole.append(own.whole(batch.classes))
                empty.append(NO_CLASS)
            rows = np.array([one.own.start for one in filling])
            for array, none in zip(whole, empty, strict=True):
                array[rows] = none
            self._write(rows, pieces, np.array([len(one.plan.pieces) for one in filling]), values, whole)
            for one in filling if filling[0].item.views > 1 else ():
                for array in whole:
                    array[one.own.start + 1 : one.own.stop] = array[one.own.start]
            if self.mask is not None:
                tokens, documents, numbers, *classes = whole
                words = numbers[rows].astype(np.int64)
                np.copyto(words, SPECIAL, where=words < 0)
                np.copyto(words, PADDING, where=documents[rows] < 0)
                words.flags.writeable = False  # the views of a sample share them
                for one, own, row in zip(filling, words, rows.tolist(), strict=True):
                    one.plan.row = FilledRow(own, tokens[row], classes[0][row] if classes else None)

    def _write(
        self,
        rows: Int64s,
        pieces: Sequence[Piece],
        sizes: Int64s,
        values: Mapping[str, npt.NDArray[Any]],
        whole: Sequence[npt.NDArray[Any]],
    ) -> None:
        """Writes pieces to empty rows, of which each has `sizes` pieces, with their special tokens."""
        (begin, end), counts = self.ends, np.array([piece.tokens for piece in pieces])
        of_row = np.repeat(np.cumsum(sizes) - sizes, sizes)  # the first piece of each one's row
        taken = counts + len(begin) + len(end)
        before = np.cumsum(taken) - taken
        # Places in the flattened rows: those of each piece's first token, and of all tokens.
        first = before - before[of_row] + len(begin) + np.repeat(rows * self.grid.size, sizes)
        starts = np.cumsum(counts) - counts
        places = np.repeat(first - starts, counts) + np.arange(starts[-1] + counts[-1])
        tokens, documents, words, *classes = (array.reshape(-1) for array in whole)
        number = np.arange(len(pieces), dtype=np.int32) - of_row.astype(np.int32)
        # Numbers of another type are written in three times the time.
        tokens[places] = values[TOKENS].astype(np.int32)
        documents[places] = np.repeat(number, counts)
        words[places] = _in_rows(values.get(WORDS), counts, of_row).astype(np.int32)
        for array in classes:
            array[places] = values[CLASSES]
        for special, at in ((begin, first - 1), (end, first + counts)):
            for token in special:  # one or none
                tokens[at], documents[at] = token, number

    def cues(self, item: Item, plan: TextPlan, batch: TextBatch, row: int, part: str, needs: frozenset[str]) -> Cues:
        """The words, classes, scores and tokens of a row, the latter where a mask needs them."""
        assert plan.row is not None
        classes = scores = tokens = None
        if plan.row.classes is not None and "classes" in needs:
            classes = plan.row.classes.astype(np.int64)
            classes[classes == NO_CLASS] = -1
        if self.scores is not None:
            begin = len(self.ends[0])
            scores = self.scores.in_row(item.shown.key, begin, plan.pieces[0].tokens, self.grid.size)
        if "tokens" in needs:
            tokens = plan.row.tokens.astype(np.int64)
        return Cues(words=plan.row.words, classes=classes, scores=scores, tokens=tokens)

    def join(self, batch: TextBatch, planned: Sequence[Planned[TextPlan]]) -> TextBatch:
        """The batch with its lengths, and without padding."""
        documents = batch.documents.numpy()
        lengths = torch.from_numpy((documents >= 0).sum(1, dtype=np.int32))
        return replace(batch, lengths=lengths, unpadded=Unpadded.of(batch.tokens.numpy(), documents))

    def _check_piece(self, manifest: Manifest, sample: int, first: int, count: int) -> None:
        """SampleError if the numbers of a piece contradict each other."""
        for name in self.components:
            token_range(manifest, sample, name, first, count)

    def _windows(self, items: Sequence[Item], rows: list[int], samples: list[int], most: Int64s) -> Int64s:
        """Draws the first token of windows, each below its `most`; rows: the places of their items."""
        keys = items[0].manifest.keys(samples) if self.shares else [items[row].shown.key for row in rows]
        names = ((items[row].epoch, key, 0) for row, key in zip(rows, keys, strict=True))
        rngs = sample_rngs(items[0].seed, names, "window")
        return np.array([rng.integers(one) for rng, one in zip(rngs, most.tolist(), strict=True)])

    def _values(self, manifest: Manifest, pieces: Sequence[Piece], stats: Stats) -> dict[str, npt.NDArray[Any]]:
        """The values of pieces by component, piece after piece; SampleError if one of them is unusable."""
        try:
            return self._read(manifest, pieces, stats)
        except SampleError:
            for piece in pieces if len(pieces) > 1 else ():
                self._read(manifest, [piece], Stats())  # raises the error of the first that has one
            raise

    def _read(self, manifest: Manifest, pieces: Sequence[Piece], stats: Stats) -> dict[str, npt.NDArray[Any]]:
        """The same, with an error that names the sample where there is only one."""
        sample = pieces[0].sample
        with manifest.reading(sample, self.components[0]), stats.stage("read"):
            read = manifest.store.read_many([one for piece in pieces for one in piece.ranges])
        stats.read_bytes += sum(map(len, read))
        values = {}
        with stats.stage("convert"):
            starts = np.cumsum([piece.tokens for piece in pieces[:-1]], dtype=np.int64)
            for n, name in enumerate(self.components):
                with manifest.reading(sample, name):
                    values[name] = self._joined(manifest, pieces, name, read[n :: len(self.components)])
                    self._check(name, values[name], starts)
        return values

    def _joined(
        self, manifest: Manifest, pieces: Sequence[Piece], name: str, read: Sequence[bytes]
    ) -> npt.NDArray[Any]:
        """The values of a component of pieces, those that are subtracted as int64; their types may differ."""
        words = manifest.components[name].words["dtype"]
        codes = words.code[[piece.sample for piece in pieces]].tolist()
        if len({*codes}) == 1:
            values = np.frombuffer(b"".join(read), words.names[codes[0]])
        else:
            values = np.concatenate(
                [np.frombuffer(one, words.names[code]) for one, code in zip(read, codes, strict=True)]
            )
        return values.astype(np.int64) if name == WORDS else values

    def _check(self, name: str, values: npt.NDArray[Any], starts: Int64s) -> None:
        """DataError for values that are none; starts: where pieces begin, but for the first."""
        if name == TOKENS and values.max() >= self.tokenizer.vocabulary:
            raise DataError(f"has the id {values.max()}; its tokenizer has {self.tokenizer.vocabulary}")
        if name == WORDS:
            steps = np.diff(values)
            steps[starts - 1] = 0
            if (steps & ~1).any():  # neither 0 nor 1
                raise DataError("has words whose numbers do not ascend by one")
        if name == CLASSES and (wrong := values[(values >= N_CLASSES) & (values != NO_CLASS)]).size:
            raise DataError(f"has the class {wrong[0]}; legal are 0 to {N_CLASSES - 1}, and {NO_CLASS} for none")


def _in_rows(words: Int64s | None, counts: Int64s, of_row: Int64s) -> Int64s:
    """The numbers of the words of pieces of `counts` tokens within their rows: int64 (tokens,).

    words: their numbers within documents; None numbers tokens. of_row: the first piece of each one's row.
    """
    starts = np.cumsum(counts) - counts
    if words is None:
        words = np.arange(starts[-1] + counts[-1])
    first = words[starts]
    spans = words[starts + counts - 1] - first + 1
    before = np.cumsum(spans) - spans
    numbers: Int64s = words + np.repeat(before - before[of_row] - first, counts)
    return numbers


def _given(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
