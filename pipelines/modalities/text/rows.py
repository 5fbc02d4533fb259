"""Rows of texts: finds the documents of a row, reads their tokens, words and classes, and gives the mask its cues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.masks import Cues, Draw, Maps, Mask, TokenGrid
from maskstream.pipelines.masks.core import TextDraws, maps_of, mask_purpose, needed_cues
from maskstream.pipelines.masks.text.replace import TextMaps
from maskstream.pipelines.modalities.rows import (
    Filling,
    Item,
    Many,
    Masked,
    Memory,
    Planned,
    RowMaker,
    SampleRows,
    Shown,
)
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.rng import sample_keys, sample_rngs
from maskstream.pipelines.stream.sampler import Visible
from maskstream.pipelines.stream.samples import Samples
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import DataError, SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TokenizerFacts
from maskstream.shards.members.text import TOKEN_TYPES
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.local import LocalStore

from .batch import N_CLASSES, NO_CLASS, TextBatch, Unpadded, unpadded
from .packing import COUNT, FILE, RANGES, SAMPLE, Int64s, Packing, token_dtype, token_range
from .token_scores import TokenScores

Int32s = npt.NDArray[np.int32]
UInt8s = npt.NDArray[np.uint8]

TOKENS, WORDS, CLASSES = "tokens.npy", "words.npy", "classes.npy"
KERNELS = ("maskstream.pipelines.modalities.text.kernels", "maskstream.shards.stores.checked_reads")
_NOTHING = torch.zeros(0, dtype=torch.int32)
NONE = Unpadded(tokens=_NOTHING, index=_NOTHING.long(), positions=_NOTHING, cu_seqlens=torch.zeros(1), longest=0)
"""No tokens, before `join` finds those of a batch."""


class FilledRow(NamedTuple):
    """A filled row as masks want it: int64 (L,), its words, `SPECIAL` and `PADDING` among them; int32 (L,), its tokens,
    and uint8 (L,), its classes, as the batch has them.
    """

    words: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8] | None


@dataclass(slots=True)
class TextPlan:
    """The pieces of a row, parts of documents, in order, int64 (P, `RANGES` + 2 a component); the names of the files;
    and the row that `fill` made of them: cues read it there, since `Tensor.numpy` costs more than a row of numbers.
    """

    pieces: Int64s
    names: Sequence[str]
    row: FilledRow | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return tuple(ranges_of(self.pieces, self.names))


def place_pieces(manifest: Manifest, samples: Int64s, names: Sequence[str], first: Int64s, count: Int64s) -> Int64s:
    """The columns of pieces, the values [first, first + count) of samples that were not removed: int64 (P, `RANGES` + 2
    a component). SampleError for the first whose numbers in the manifest contradict each other.
    """
    from .kernels import place_values

    pieces = np.empty((len(samples), RANGES + 2 * len(names)), np.int64)
    pieces[:, SAMPLE], pieces[:, COUNT], pieces[:, FILE] = samples, count, manifest.shard[samples]
    for at, component in enumerate(manifest.components[name] for name in names):
        words, facts = component.words["dtype"], component.facts
        columns = (component.offset, component.size, facts["n_tokens"], facts["data_offset"])
        numbers = (column.astype(np.int64, copy=False) for column in columns)
        if not place_values(pieces, RANGES + 2 * at, first, words.code, _widths(*words.names), *numbers):
            for number, (sample, *piece) in enumerate(
                zip(*(one.tolist() for one in (samples, first, count)), strict=True)
            ):
                pieces[number, RANGES:] = [n for name in names for n in token_range(manifest, sample, name, *piece)[1:]]
            break
    return pieces


@cache
def _widths(*names: str) -> Int64s:
    """The bytes of a value of some dtypes, 0 for one that no tokens have, and behind them 0 for none."""
    return np.array([*(np.dtype(name).itemsize if name in TOKEN_TYPES else 0 for name in names), 0])


def ranges_of(pieces: Int64s, names: Sequence[str]) -> list[Range]:
    """What is read of pieces, piece after piece, each component by component."""
    places = range(RANGES, pieces.shape[1], 2)
    return [Range(names[piece[FILE]], piece[at], piece[at + 1]) for piece in pieces.tolist() for at in places]


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
        numbers = np.array([(item.index, item.epoch) for item in items]).T
        pieces, edges = self._pieces(Many(items[0].manifest, items[0].seed, *numbers))
        names = items[0].manifest.shard_names
        return [TextPlan(pieces[begin:end], names) for begin, end in pairwise(edges.tolist())]

    def _pieces(self, items: Many) -> tuple[Int64s, Int64s]:
        """The pieces of rows, row after row, and where those of each begin and end, int64 (n + 1,)."""
        manifest, packing, n = items.manifest, self.packing, len(items.indexes)
        row, number = self.packing.rows(items.indexes) if self.shares else (np.arange(n), items.indexes)
        sample, first, count = packing.sample[number], packing.first[number], packing.count[number]
        if len(manifest.removed):
            there = ~np.isin(sample, manifest.removed)
            for gone in np.setdiff1d(np.arange(n), row[there]).tolist():
                raise manifest.sample_error(int(sample[row == gone][-1]), self.components[0], "it was removed")
            row, sample, first, count = row[there], sample[there], first[there], count[there]
        most = self.grid.size - sum(map(len, self.ends))
        if self.windows and (long := np.flatnonzero(count > most)).size:
            first = first.copy()
            first[long] += self._windows(items, row[long], sample[long], count[long] - most + 1)
        pieces = place_pieces(manifest, sample, self.components, first, np.minimum(count, most))
        return pieces, np.searchsorted(row, np.arange(n + 1)) if self.shares else np.arange(n + 1)

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
        pieces = np.concatenate([one.plan.pieces for one in filling])
        sizes = np.array([len(one.plan.pieces) for one in filling])
        rows = np.array([one.own.start for one in filling])
        arrays = self._arrays(batch, own)
        words = self._write(manifest, pieces, sizes, rows, arrays, stats)
        for one in filling if filling[0].item.views > 1 else ():
            for array in arrays:
                if len(array):  # else the split has no classes
                    array[one.own.start + 1 : one.own.stop] = array[one.own.start]
        if self.mask is not None:
            tokens, _, _, classes = arrays
            for one, row, at in zip(filling, words, rows.tolist(), strict=True):
                one.plan.row = FilledRow(row, tokens[at], None if batch.classes is None else classes[at])

    def _arrays(self, batch: TextBatch, own: SampleRows) -> tuple[Int32s, Int32s, Int32s, UInt8s]:
        """The tokens, documents, words and classes of a batch; without classes these are (0, 0)."""
        classes = np.empty((0, 0), np.uint8) if batch.classes is None else own.whole(batch.classes)
        return own.whole(batch.tokens), own.whole(batch.documents), own.whole(batch.words), classes

    def _write(
        self,
        manifest: Manifest,
        pieces: Int64s,
        sizes: Int64s,
        rows: Int64s,
        arrays: tuple[Int32s, Int32s, Int32s, UInt8s],
        stats: Stats,
    ) -> Int64s:
        """Reads pieces and writes them to rows, of which `rows[i]` gets the next `sizes[i]`; the words for the mask,
        read-only, (rows, L), or (0, 0) without one. SampleError if one is unusable.
        """
        read = self._read(manifest, pieces, stats)
        with stats.stage("convert"):
            from .kernels import write_rows

            words = np.empty((0, 0) if self.mask is None else (len(rows), self.grid.size), np.int64)
            if not write_rows(pieces, sizes, rows, self._legal(), read, *arrays, words):
                self._check_each(manifest, pieces)
                raise manifest.sample_error(int(pieces[0, SAMPLE]), TOKENS, "its bytes changed while they were read")
            words.flags.writeable = False  # the views of a sample share them
            return words

    def fill_many(
        self, items: Many, batch: TextBatch, own: SampleRows, rows: Int64s, stats: Stats
    ) -> Mapping[str, Sequence[Maps]] | None:
        """One kernel reads the rows, and another writes them."""
        manifest = items.manifest
        if self.shares and len(manifest.removed):  # a row's key may be that of another document
            return None
        pieces, edges = self._pieces(items)
        arrays = self._arrays(batch, own)
        words = self._write(manifest, pieces, edges[1:] - edges[:-1], rows, arrays, stats)
        begins = pieces[edges[:-1]]
        keys = manifest.keys(begins[:, SAMPLE])
        for row, key in zip(rows.tolist(), keys, strict=True):
            batch.key[row] = key
        own.whole(batch.label)[rows] = -1 if self.shares else manifest.label[begins[:, SAMPLE]]
        if self.mask is None:
            return {}
        with stats.stage("mask"):
            return {"mask": self._maps(self.mask, items, keys, begins[:, COUNT], words, rows, arrays)}

    def _maps(
        self,
        mask: Mask,
        items: Many,
        keys: list[str],
        counts: Int64s,
        words: Int64s,
        rows: Int64s,
        arrays: tuple[Int32s, Int32s, Int32s, UInt8s],
    ) -> list[TextMaps]:
        """The masks of rows, of which `counts` tokens are of the first document; the other arguments as in `_write`."""
        assert items.plan is not None
        drawn = keys
        if self.shares:
            first = self.packing.first[self.packing.start[items.indexes]].tolist()
            drawn = [f"{key} {number}" for key, number in zip(keys, first, strict=True)]
        named = [*zip(items.epochs.tolist(), drawn, repeat(0, len(keys)), strict=True)]
        tokens, _, _, classes = arrays
        keyed = sample_keys(items.seed, named, mask_purpose(""))
        if (found := mask.maps_of_texts(self.grid, TextDraws.of(keyed, words, tokens[rows]))) is not None:
            return [*map(TextMaps.of, found)]
        needs, maps, wanted, places = needed_cues(mask), [], items.plan.wanted, rows.tolist()
        for n, rng in enumerate(sample_rngs(items.seed, named, mask_purpose(""))):
            row = FilledRow(words[n], tokens[places[n]], classes[places[n]] if len(classes) else None)
            cues = self._cues(row, keys[n], int(counts[n]), needs)
            epoch, key, view = named[n]
            draw = Draw.of(items.seed, epoch, key, view, wanted[n].place, cues, rng=rng)
            maps.append(TextMaps.of(maps_of(mask, self.grid, draw)))
        return maps

    def _legal(self) -> Int64s:
        """What the kernel must know of the tokens and the components."""
        begin, end = (-1 if token is None else token for token in (self.tokenizer.begin, self.tokenizer.end))
        places = [self.components.index(name) if name in self.components else -1 for name in (WORDS, CLASSES)]
        vocabulary = self.tokenizer.vocabulary
        return np.array([begin, end, self.tokenizer.pad or 0, vocabulary, N_CLASSES, NO_CLASS, *places])

    def cues(self, item: Item, plan: TextPlan, batch: TextBatch, row: int, part: str, needs: frozenset[str]) -> Cues:
        """The words, classes, scores and tokens of a row, the latter where a mask needs them."""
        assert plan.row is not None
        return self._cues(plan.row, item.shown.key, int(plan.pieces[0, COUNT]), needs)

    def _cues(self, row: FilledRow, key: str, count: int, needs: frozenset[str]) -> Cues:
        classes = scores = tokens = None
        if row.classes is not None and "classes" in needs:
            classes = row.classes.astype(np.int64)
            classes[classes == NO_CLASS] = -1
        if self.scores is not None:
            scores = self.scores.in_row(key, len(self.ends[0]), count, self.grid.size)
        if "tokens" in needs:
            tokens = row.tokens.astype(np.int64)
        return Cues(words=row.words, classes=classes, scores=scores, tokens=tokens)

    def join(self, batch: TextBatch, planned: Sequence[Planned[TextPlan]]) -> TextBatch:
        """The batch with its lengths, and without padding."""
        lengths, whole = unpadded(batch.tokens.numpy(), batch.documents.numpy())
        return replace(batch, lengths=lengths, unpadded=whole)

    def _windows(self, items: Many, rows: Int64s, samples: Int64s, most: Int64s) -> Int64s:
        """Draws the first token of windows, each below its `most`; rows: the places of their items."""
        names = zip(items.epochs[rows].tolist(), items.manifest.keys(samples), repeat(0))
        rngs = sample_rngs(items.seed, names, "window")
        return np.array([rng.integers(one) for rng, one in zip(rngs, most.tolist(), strict=True)])

    def _read(self, manifest: Manifest, pieces: Int64s, stats: Stats) -> UInt8s:
        """The bytes of pieces, piece after piece, component by component; SampleError if one of them is unusable."""
        with stats.stage("read"):
            store, data = manifest.store, None
            if type(store) is LocalStore and len(pieces):
                data = store.read_joined(manifest.shard_names, pieces[:, FILE], pieces[:, RANGES:])
            if data is None:
                try:
                    with manifest.reading(int(pieces[0, SAMPLE]), self.components[0]):
                        read = store.read_many(ranges_of(pieces, manifest.shard_names))
                except SampleError:
                    if len(pieces) > 1:
                        self._check_each(manifest, pieces)
                    raise
                data = np.frombuffer(bytearray().join(read), np.uint8)
        if len(manifest.removed) and np.isin(pieces[:, SAMPLE], manifest.removed).any():
            raise manifest.moved_error(int(pieces[0, SAMPLE]), self.components[0])  # one was erased since the plan
        stats.read_bytes += len(data)
        return data

    def _check_each(self, manifest: Manifest, pieces: Int64s) -> None:
        """Reads pieces alone; raises the SampleError of the first that has one."""
        for at in range(len(pieces)):
            sample, read = int(pieces[at, SAMPLE]), self._read(manifest, pieces[at : at + 1], Stats())
            edges = np.cumsum(pieces[at, RANGES + 1 :: 2])[:-1]
            for name, data in zip(self.components, np.split(read, edges), strict=True):
                with manifest.reading(sample, name):
                    self._check(name, data.view(token_dtype(manifest, sample, name)))

    def _check(self, name: str, values: npt.NDArray[np.unsignedinteger]) -> None:
        """DataError for values that are none."""
        if name == TOKENS and values.max() >= self.tokenizer.vocabulary:
            raise DataError(f"has the id {values.max()}; its tokenizer has {self.tokenizer.vocabulary}")
        if name == WORDS and not np.isin(np.diff(values.astype(np.int64)), (0, 1)).all():
            raise DataError("has words whose numbers do not ascend by one")
        if name == CLASSES and (wrong := values[(values >= N_CLASSES) & (values != NO_CLASS)]).size:
            raise DataError(f"has the class {wrong[0]}; legal are 0 to {N_CLASSES - 1}, and {NO_CLASS} for none")


def _given(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
