"""Rows of texts: find the documents of a row, read their tokens, words and classes, and provide mask inputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.masks.core import TextDraws, mask_purpose
from maskstream.pipelines.masks.text.replace import TextMaps
from maskstream.pipelines.modalities.rows import BatchRows, Items, Masked, Memory, RowMaker, Traits
from maskstream.pipelines.stream.rng import sample_keys, sample_rngs
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Int32s, Int64s, UInt8s
from maskstream.shards.errors import DataError, SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TokenizerFacts
from maskstream.shards.members.text import TOKEN_TYPES
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.local import LocalStore

from .batch import N_CLASSES, NO_CLASS, TextBatch, Unpadded, unpadded
from .packing import COUNT, FILE, RANGES, SAMPLE, Packing, find_token_range, read_token_dtype
from .token_scores import TokenScores

TOKENS, WORDS, CLASSES = "tokens.npy", "words.npy", "classes.npy"
KERNELS = ("maskstream.pipelines.modalities.text.kernels", "maskstream.shards.stores.checked_reads")
_NOTHING = torch.zeros(0, dtype=torch.int32)
NONE = Unpadded(tokens=_NOTHING, index=_NOTHING.long(), positions=_NOTHING, cu_seqlens=torch.zeros(1), longest=0)
"""Placeholder without tokens until `join` computes the batch's."""


class TextPlan(NamedTuple):
    """Pieces of a row (parts of documents) in order, int64 (P, `RANGES` + 2 per component), and the file names."""

    pieces: Int64s
    names: Sequence[str]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges to read."""
        return tuple(list_ranges(self.pieces, self.names))


@dataclass(slots=True)
class TextPlans(Sequence[TextPlan]):
    """Plans of n rows as arrays: row i has the pieces [edges[i], edges[i + 1]), with edges int64 (n + 1,)."""

    pieces: Int64s
    edges: Int64s
    names: Sequence[str]
    words: Int64s | None = None
    """Mask input written by `fill`, int64 (n, L), with `SPECIAL` and `PADDING`."""

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, n: Any) -> Any:
        return TextPlan(self.pieces[self.edges[n] : self.edges[n + 1]], self.names)

    def __iter__(self) -> Iterator[TextPlan]:
        return (TextPlan(self.pieces[begin:end], self.names) for begin, end in pairwise(self.edges.tolist()))


def place_pieces(manifest: Manifest, samples: Int64s, names: Sequence[str], first: Int64s, count: Int64s) -> Int64s:
    """Build the columns of pieces, the values [first, first + count) of samples that were not removed: int64 (P,
    `RANGES` + 2 per component).

    Raises:
        SampleError: A sample's numbers in the manifest are inconsistent; refers to the first one.
    """
    from .kernels import place_values

    pieces = np.empty((len(samples), RANGES + 2 * len(names)), np.int64)
    pieces[:, SAMPLE], pieces[:, COUNT], pieces[:, FILE] = samples, count, manifest.shard[samples]
    for at, component in enumerate(manifest.components[name] for name in names):
        words, facts = component.words["dtype"], component.facts
        columns = (component.offset, component.size, facts["n_tokens"], facts["data_offset"])
        numbers = (column.astype(np.int64, copy=False) for column in columns)
        if not place_values(pieces, RANGES + 2 * at, first, words.code, _list_widths(*words.names), *numbers):
            for number, (sample, *piece) in enumerate(
                zip(*(one.tolist() for one in (samples, first, count)), strict=True)
            ):
                pieces[number, RANGES:] = [
                    n for name in names for n in find_token_range(manifest, sample, name, *piece)[1:]
                ]
            break
    return pieces


@cache
def _list_widths(*names: str) -> Int64s:
    """Return the bytes per value of some dtypes, 0 for dtypes that tokens cannot have, followed by 0
    for a missing one.
    """
    return np.array([*(np.dtype(name).itemsize if name in TOKEN_TYPES else 0 for name in names), 0])


def list_ranges(pieces: Int64s, names: Sequence[str]) -> list[Range]:
    """Return the byte ranges of pieces, piece after piece, component by component."""
    places = range(RANGES, pieces.shape[1], 2)
    return [Range(names[piece[FILE]], piece[at], piece[at + 1]) for piece in pieces.tolist() for at in places]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRowMaker(RowMaker[TextPlan, TextBatch]):
    """Creates rows of texts. An item's index is the number of a row, which equals its sample's if rows hold one
    document.
    """

    tokenizer: TokenizerFacts
    """Ids of special tokens."""
    packing: Packing
    """Rows and their pieces."""
    components: tuple[str, ...]
    """Members that are read, among `tokens.npy`, `words.npy` and `classes.npy`."""
    grid: TokenGrid
    mask: Mask | None
    windows: bool
    """Show a random window of documents that are too long instead of their beginning."""
    shares: bool
    """True if rows contain several documents."""
    scores: TokenScores | None
    """Token scores for the mask; only with one document per row and without windows."""

    @property
    def traits(self) -> Traits:
        """A whole batch at once. Parts of mixtures must share the tokenizer; the number of visible tokens depends on
        the texts.
        """
        return Traits(
            together=256,
            form={"tokenizer": self.tokenizer.sha256, "classes": CLASSES in self.components},
            counted=False,
            shard_rows=tuple(self.packing.shard_rows.tolist()),
        )

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the tokens."""
        return (Masked("mask", self.mask, self.grid, of=TextMaps.of),)

    @property
    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Special tokens before and after a document."""
        return _pass_given(self.tokenizer.begin), _pass_given(self.tokenizer.end)

    def plan(self, items: Items) -> TextPlans:
        """Find the documents of rows and their byte ranges.

        A packed row has the key of its first document that is not removed, no label, and separate random draws.

        Raises:
            SampleError: None of a row's documents exists.
        """
        manifest, packing, indexes, n = items.manifest, self.packing, items.wanted.indexes, len(items)
        row, number = packing.rows(indexes) if self.shares else (np.arange(n), indexes)
        sample, first, count = packing.sample[number], packing.first[number], packing.count[number]
        if len(manifest.removed):
            there = ~np.isin(sample, manifest.removed)
            for gone in np.setdiff1d(np.arange(n), row[there]).tolist():
                raise manifest.sample_error(int(sample[row == gone][-1]), self.components[0], "it was removed")
            row, sample, first, count = row[there], sample[there], first[there], count[there]
        edges = np.arange(n + 1)
        if self.shares:
            edges = np.searchsorted(row, edges)
            items.keys, items.labels = manifest.keys(sample[edges[:-1]].tolist()), np.full(n, -1)
            both = zip(items.keys, first[edges[:-1]].tolist(), strict=True)
            items.drawn = [f"{key} {token}" for key, token in both]
        most = self.grid.size - sum(map(len, self.ends))
        if self.windows and (long := np.flatnonzero(count > most)).size:
            first = first.copy()
            first[long] += self._windows(items, row[long], sample[long], count[long] - most + 1)
        pieces = place_pieces(manifest, sample, self.components, first, np.minimum(count, most))
        return TextPlans(pieces, edges, manifest.shard_names)

    def layout(self, memory: Memory[TextPlan]) -> TextBatch:
        """Create the empty batch; `join` computes the fields derived from tokens."""
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

    def fill(self, rows: BatchRows[TextPlan], batch: TextBatch, stats: Stats) -> None:
        """Read the documents of rows, write them (identically for all views) and draw their masks if possible, with one
        kernel each.

        Raises:
            SampleError: A row is unusable.
        """
        plans, items, arrays = _join_plans(rows.plans), rows.items, self._arrays(rows, batch)
        starts = np.array(rows.starts)
        sizes = np.diff(plans.edges)
        words = plans.words = self._write(items.manifest, plans.pieces, sizes, starts, arrays, stats)
        for array in arrays if items.views > 1 else ():
            if len(array):  # else the split has no classes
                for view in range(1, items.views):
                    array[starts + view] = array[starts]
        if self.mask is None:
            return
        with stats.stage("mask"):
            every = starts if items.views == 1 else (starts[:, None] + np.arange(items.views)).ravel()
            if items.views > 1:
                words = words.repeat(items.views, axis=0)
                words.flags.writeable = False
            keys = sample_keys(items.seed, items.mask_names(), mask_purpose(""))
            # Otherwise the sampler draws masks one by one, from their inputs.
            if (found := self.mask.maps_of_texts(self.grid, TextDraws.of(keys, words, arrays[0][every]))) is not None:
                for row, maps in zip(every.tolist(), found, strict=True):
                    rows.maps[""][row] = TextMaps.of(maps)

    def _arrays(self, rows: BatchRows[TextPlan], batch: TextBatch) -> tuple[Int32s, Int32s, Int32s, UInt8s]:
        """Return the tokens, documents, words and classes of a batch; missing classes are (0, 0)."""
        classes = np.empty((0, 0), np.uint8) if batch.classes is None else rows.whole(batch.classes)
        return rows.whole(batch.tokens), rows.whole(batch.documents), rows.whole(batch.words), classes

    def _write(
        self,
        manifest: Manifest,
        pieces: Int64s,
        sizes: Int64s,
        rows: Int64s,
        arrays: tuple[Int32s, Int32s, Int32s, UInt8s],
        stats: Stats,
    ) -> Int64s:
        """Read pieces and write them to rows: `rows[i]` receives the next `sizes[i]`.

        Returns:
            Words for the mask, read-only, (rows, L), or (0, 0) without a mask.

        Raises:
            SampleError: A piece is unusable.
        """
        read = self._read(manifest, pieces, stats)
        with stats.stage("convert"):
            from .kernels import write_rows

            words = np.empty((0, 0) if self.mask is None else (len(rows), self.grid.size), np.int64)
            if not write_rows(pieces, sizes, rows, self._list_legal_dtypes(), read, *arrays, words):
                self._check_each(manifest, pieces)
                raise manifest.sample_error(int(pieces[0, SAMPLE]), TOKENS, "its bytes changed while they were read")
            words.flags.writeable = False  # shared by the views of a sample
            return words

    def _list_legal_dtypes(self) -> Int64s:
        """Return the tokenizer and component parameters of the kernel."""
        begin, end = (-1 if token is None else token for token in (self.tokenizer.begin, self.tokenizer.end))
        places = [self.components.index(name) if name in self.components else -1 for name in (WORDS, CLASSES)]
        vocabulary = self.tokenizer.vocabulary
        return np.array([begin, end, self.tokenizer.pad or 0, vocabulary, N_CLASSES, NO_CLASS, *places])

    def cues(
        self, rows: BatchRows[TextPlan], batch: TextBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        """Return the words, classes, scores and tokens of a row that a mask needs."""
        plans, start = _join_plans(rows.plans), rows.starts[n]
        assert plans.words is not None
        classes = scores = tokens = None
        if batch.classes is not None and "classes" in needs:
            classes = rows.whole(batch.classes)[start].astype(np.int64)
            classes[classes == NO_CLASS] = -1
        if self.scores is not None:
            count = int(plans.pieces[plans.edges[n], COUNT])
            scores = self.scores.in_row(rows.items.keys[n], len(self.ends[0]), count, self.grid.size)
        if "tokens" in needs:
            tokens = rows.whole(batch.tokens)[start].astype(np.int64)
        return Cues(words=plans.words[n], classes=classes, scores=scores, tokens=tokens)

    def join(self, batch: TextBatch, plans: Iterable[TextPlan], made: Mapping[str, Any]) -> TextBatch:
        """Add lengths and the unpadded form to the batch."""
        lengths, whole = unpadded(batch.tokens.numpy(), batch.documents.numpy())
        return replace(batch, lengths=lengths, unpadded=whole, **made)

    def _windows(self, items: Items, rows: Int64s, samples: Int64s, most: Int64s) -> Int64s:
        """Draw the first token of windows, each below its `most`; `rows` are the indexes of their items."""
        names = zip(items.wanted.epochs[rows].tolist(), items.manifest.keys(samples), repeat(0))
        rngs = sample_rngs(items.seed, names, "window")
        return np.array([rng.integers(one) for rng, one in zip(rngs, most.tolist(), strict=True)])

    def _read(self, manifest: Manifest, pieces: Int64s, stats: Stats) -> UInt8s:
        """Read the bytes of pieces, piece after piece, component by component.

        Raises:
            SampleError: A piece is unusable.
        """
        with stats.stage("read"):
            store, data = manifest.store, None
            if type(store) is LocalStore and len(pieces):
                data = store.read_joined(manifest.shard_names, pieces[:, FILE], pieces[:, RANGES:])
            if data is None:
                try:
                    with manifest.reading(int(pieces[0, SAMPLE]), self.components[0]):
                        read = store.read_many(list_ranges(pieces, manifest.shard_names))
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
        """Read pieces one by one to raise the SampleError of the first bad one."""
        for at in range(len(pieces)):
            sample, read = int(pieces[at, SAMPLE]), self._read(manifest, pieces[at : at + 1], Stats())
            edges = np.cumsum(pieces[at, RANGES + 1 :: 2])[:-1]
            for name, data in zip(self.components, np.split(read, edges), strict=True):
                with manifest.reading(sample, name):
                    self._check(name, data.view(read_token_dtype(manifest, sample, name)))

    def _check(self, name: str, values: npt.NDArray[np.unsignedinteger]) -> None:
        """Raise DataError for values outside the valid range."""
        if name == TOKENS and values.max() >= self.tokenizer.vocabulary:
            raise DataError(f"has the id {values.max()}, but its tokenizer has only {self.tokenizer.vocabulary} ids")
        if name == WORDS and not np.isin(np.diff(values.astype(np.int64)), (0, 1)).all():
            raise DataError("has word numbers that do not increase by one")
        if name == CLASSES and (wrong := values[(values >= N_CLASSES) & (values != NO_CLASS)]).size:
            raise DataError(f"has the class {wrong[0]}; expected 0 to {N_CLASSES - 1}, or {NO_CLASS} for none")


def _join_plans(plans: Sequence[TextPlan]) -> TextPlans:
    """Combine the plans of rows into arrays, as `plan` returns them."""
    assert isinstance(plans, TextPlans)
    return plans


def _pass_given(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
