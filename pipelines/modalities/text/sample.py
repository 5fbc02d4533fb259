"""The text sampler: it finds the documents of a row, reads their tokens, words and classes, and draws the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.errors import DataError, RemovedError
from ....shards.format.manifest import Manifest
from ....shards.format.tokenizer import TokenizerFacts
from ....shards.stores.base import Announcement, Range
from ...masks import Cues, Draw, Mask, TokenGrid
from ...masks.text.batch import TextMaps, TextMaskBatch
from ...masks.text.words import PADDING, SPECIAL
from ...stream.place import Place
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from ..token_ranges import token_dtype, token_range
from .batch import N_CLASSES, NO_CLASS, TextBatch, text_batch
from .packing import Packing
from .token_scores import TokenScores

TOKENS, WORDS, CLASSES = "tokens.npy", "words.npy", "classes.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a document: its sample, its `count` tokens from number `first` on, and where their values lie."""

    sample: int
    first: int
    count: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRequest:
    """A row: its pieces, in order. index: the sample of the first one. key: that sample's key; row: the row's own."""

    index: int
    epoch: int
    place: Place
    key: str
    row: str
    label: int
    pieces: tuple[Piece, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return tuple(one for piece in self.pieces for one in piece.ranges)


@dataclass(kw_only=True, slots=True)
class TextDraft:
    """The memory of a batch of B rows of L tokens; the arrays are those of `TextBatch`. maps: one per row."""

    tokens: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int32]
    words: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int64]
    key: list[str]
    maps: list[TextMaps | None]


@dataclass(frozen=True, kw_only=True)
class TextSampler:
    """Makes host batches of texts. It holds only settings, so it can be sent to worker processes.

    tokenizer: the ids of special tokens. packing: the rows. components: the members that are read, of `tokens.npy`,
    `words.npy` and `classes.npy`. windows: whether a document that is too long shows a random window instead of its
    beginning. shares: whether rows hold several documents. scores: of tokens, for the mask; only with one document a
    row and without windows.
    """

    manifest: Manifest
    tokenizer: TokenizerFacts
    packing: Packing
    components: tuple[str, ...]
    grid: TokenGrid
    pattern: Mask | None
    seed: int
    views: int = 1
    windows: bool = False
    shares: bool = False
    scores: TokenScores | None = None

    @property
    def length(self) -> int:
        """The tokens of a row."""
        return self.grid.size

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.pattern is not None and self.pattern.needs_progress

    @property
    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens before and behind a document."""
        return _given(self.tokenizer.begin), _given(self.tokenizer.end)

    def request(self, wanted: Wanted) -> TextRequest:
        """Finds the documents of a row and their byte ranges; raises SampleError if none of them is there."""
        pieces, removed = [], None
        for sample, first, count in self.packing.row(wanted.index):
            try:
                pieces.append(self._piece(wanted.epoch, sample, first, count))
            except RemovedError as error:
                removed = error
        if not pieces:
            raise removed or ValueError(f"row {wanted.index} has no documents; packing.py makes no such row")
        one = pieces[0].sample
        key = self.manifest.key(one)
        return TextRequest(
            index=one,
            epoch=wanted.epoch,
            place=wanted.place,
            key=key,
            row=f"{key} {pieces[0].first}" if self.shares else key,
            label=-1 if self.shares else int(self.manifest.label[one]),
            pieces=tuple(pieces),
        )

    def announce(self, request: TextRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[object]) -> TextDraft:
        """The memory of a batch of some requests."""
        n, length = len(requests) * self.views, self.length
        return TextDraft(
            tokens=np.empty((n, length), np.int32),
            documents=np.empty((n, length), np.int32),
            words=np.empty((n, length), np.int32),
            classes=np.empty((n, length if CLASSES in self.components else 0), np.uint8),
            label=np.empty(n, np.int64),
            key=[""] * n,
            maps=[None] * n,
        )

    def mask(self, request: TextRequest, draft: TextDraft, row: int) -> None:
        """Draws nothing: masks of texts need their words, which `fill` reads."""

    def fill(self, request: TextRequest, draft: TextDraft, row: int, stats: Stats) -> None:
        """Reads the documents of a row, and draws its masks; raises SampleError if one is unusable."""
        for view in range(self.views):
            at = row * self.views + view
            if view == 0:
                self._read(request, draft, at, stats)
            else:
                for array in (draft.tokens, draft.documents, draft.words, draft.classes):
                    array[at] = array[at - 1]
            draft.label[at], draft.key[at] = request.label, request.key
            if self.pattern is not None:
                with stats.stage("mask"):
                    draft.maps[at] = self._maps(self.pattern, request, draft, at, view)

    def join(self, draft: TextDraft) -> TextBatch:
        """The host batch; the views of a sample are consecutive rows."""
        return text_batch(
            tokens=draft.tokens,
            documents=draft.documents,
            words=draft.words,
            classes=draft.classes if CLASSES in self.components else None,
            mask=self._mask_batch(draft),
            label=draft.label,
            key=draft.key,
        )

    def _piece(self, epoch: int, sample: int, first: int, count: int) -> Piece:
        """A part of a document, cut to a window if it does not fit into a row."""
        most = self.length - sum(map(len, self.ends))
        if count > most:
            spare = count - most
            drawn = int(sample_rng(self.seed, epoch, self.manifest.key(sample), 0, "window").integers(spare + 1))
            first, count = first + (drawn if self.windows else 0), most
        ranges = tuple(token_range(self.manifest, sample, name, first, count) for name in self.components)
        return Piece(sample=sample, first=first, count=count, ranges=ranges)

    def _read(self, request: TextRequest, draft: TextDraft, at: int, stats: Stats) -> None:
        """Read the documents of a row into one row of a draft."""
        begin, end = self.ends
        draft.tokens[at], draft.documents[at], draft.words[at] = self.tokenizer.pad or 0, -1, -1
        draft.classes[at] = NO_CLASS
        place, words = 0, 0
        for number, piece in enumerate(request.pieces):
            with stats.stage("read"), self.manifest.reading(piece.sample, self.components[0]):
                read = self.manifest.store.read_many(piece.ranges)
            stats.read_bytes += sum(map(len, read))
            with stats.stage("convert"):
                values = self._values(piece, read)
                inside = slice(place + len(begin), place + len(begin) + piece.count)
                draft.documents[at, place : inside.stop + len(end)] = number
                draft.tokens[at, place : inside.start] = begin
                draft.tokens[at, inside] = values[TOKENS]
                draft.tokens[at, inside.stop : inside.stop + len(end)] = end
                own = values.get(WORDS, np.arange(piece.count))
                draft.words[at, inside] = own - own[0] + words
                words += int(own[-1] - own[0]) + 1
                if CLASSES in values:
                    draft.classes[at, inside] = values[CLASSES]
                place = inside.stop + len(end)

    def _values(self, piece: Piece, read: Sequence[bytes]) -> dict[str, npt.NDArray[np.int64]]:
        """The values of a piece by component; SampleError for some that are none."""
        values = {}
        for name, data in zip(self.components, read, strict=True):
            with self.manifest.reading(piece.sample, name):
                values[name] = np.frombuffer(data, token_dtype(self.manifest, piece.sample, name)).astype(np.int64)
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

    def _maps(self, mask: Mask, request: TextRequest, draft: TextDraft, at: int, view: int) -> TextMaps:
        words = draft.words[at].astype(np.int64)
        words[words < 0] = SPECIAL
        words[draft.documents[at] < 0] = PADDING
        classes = None
        if CLASSES in self.components:
            classes = draft.classes[at].astype(np.int64)
            classes[classes == NO_CLASS] = -1
        scores = None
        if self.scores is not None:
            scores = self.scores.in_row(request.key, len(self.ends[0]), request.pieces[0].count, self.length)
        cues = Cues(words=words, classes=classes, scores=scores, tokens=draft.tokens[at].astype(np.int64))
        draw = Draw.of(self.seed, request.epoch, request.row, view, request.place, cues)
        return TextMaps.of(mask.maps(self.grid, draw))

    def _mask_batch(self, draft: TextDraft) -> TextMaskBatch | None:
        if self.pattern is None:
            return None
        batch = self.pattern.batched(self.grid, [one for one in draft.maps if one is not None])
        assert isinstance(batch, TextMaskBatch)
        return batch


def _given(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
