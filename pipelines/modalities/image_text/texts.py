"""Rows of texts: selection of a sample's texts for a row, and their tokens.

A row contains one text of each of its roles, in order; roles that a sample does not have are omitted. If a sample has
several texts of a role, one is drawn. All roles of a row use the same index among their texts, so that questions keep
their answers. A row that is too long is truncated.
"""

from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.modalities.rows import SampleRows
from maskstream.pipelines.modalities.text.packing import find_token_range, read_token_dtype
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TokenizerFacts
from maskstream.shards.members.text import ROLES
from maskstream.shards.stores.base import Range

from .batch import PADDING, SPECIAL, TextRows

TEXTS, WORDS = "texts.npy", "words.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPiece:
    """One text of a row: its role, its index among the texts of the role, and the byte ranges of its
    tokens and words.
    """

    role: int
    number: int
    ranges: tuple[Range, Range]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPlan:
    """A row: its sample and its texts in order."""

    sample: int
    pieces: tuple[TextPiece, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges to read."""
        return tuple(one for piece in self.pieces for one in piece.ranges)

    def choose_text(self, role: str) -> int | None:
        """Return the index of the row's text of `role`; None without one."""
        return next((piece.number for piece in self.pieces if piece.role == ROLES.index(role)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowReader:
    """Draws and reads rows of the texts of samples; contains only settings."""

    manifest: Manifest
    tokenizer: TokenizerFacts
    """Ids of special tokens."""
    roles: tuple[str, ...]
    """Roles of a row, in order."""
    length: int
    """Tokens per row."""
    draws: bool
    """Draw one of several texts of a role instead of taking the first."""

    def plan(self, sample: int, rng: np.random.Generator) -> RowPlan:
        """Draw the texts of a row.

        Raises:
            SampleError: The sample has none of the roles.
        """
        roles, lengths = self._columns(sample)
        drawn = float(rng.random()) if self.draws else 0.0
        firsts = np.cumsum(lengths) - lengths
        room = self.length - (self.tokenizer.begin is not None)
        pieces = []
        for role in map(ROLES.index, self.roles):
            places = np.flatnonzero(roles == role)
            if not len(places):
                continue
            number = int(drawn * len(places))
            place = places[number]
            count = min(int(lengths[place]), room - (self.tokenizer.end is not None))
            if count < 1:
                break
            ranges = (
                find_token_range(self.manifest, sample, TEXTS, int(firsts[place]), count),
                find_token_range(self.manifest, sample, WORDS, int(firsts[place]), count),
            )
            pieces.append(TextPiece(role=role, number=number, ranges=ranges))
            room -= count + (self.tokenizer.end is not None)
        if not pieces:
            raise self.manifest.sample_error(sample, TEXTS, f"the sample has no {' or '.join(self.roles)}")
        return RowPlan(sample=sample, pieces=tuple(pieces))

    def fill(self, plan: RowPlan, rows: TextRows, row: int, own: SampleRows, stats: Stats) -> None:
        """Read the texts of a row.

        Raises:
            SampleError: A text is unusable.
        """
        ids, words, roles = (own.whole(one)[row] for one in (rows.tokens, rows.words, rows.roles))
        ids[:], words[:], roles[:] = self.tokenizer.pad or 0, -1, PADDING
        place, last = 0, 0
        if self.tokenizer.begin is not None:
            ids[0], roles[0], place = self.tokenizer.begin, SPECIAL, 1
        with stats.stage("read"), self.manifest.reading(plan.sample, TEXTS):
            read = self.manifest.store.read_many(plan.ranges)
        stats.read_bytes += sum(map(len, read))
        with stats.stage("convert"):
            for piece, stored, numbers in zip(plan.pieces, read[::2], read[1::2], strict=True):
                tokens = self._tokens(plan.sample, stored)
                found = self._words(plan.sample, numbers)
                inside = slice(place, place + len(tokens))
                ids[inside], roles[inside] = tokens, piece.role
                words[inside] = found - found[0] + last
                last += int(found[-1] - found[0]) + 1
                place = inside.stop
                if self.tokenizer.end is not None:
                    ids[place], roles[place] = self.tokenizer.end, SPECIAL
                    place += 1

    def _columns(self, sample: int) -> tuple[Int64s, Int64s]:
        """Return the role and number of tokens of each text of a sample."""
        self.manifest.member(sample, TEXTS)
        lists = self.manifest.components[TEXTS].lists
        roles, lengths = lists["roles"][sample], lists["lengths"][sample]
        with self.manifest.reading(sample, TEXTS):
            n = int(self.manifest.components[TEXTS].facts["n_tokens"][sample])
            fits = len(roles) == len(lengths) > 0 and lengths.min() >= 1 and lengths.max() <= n == lengths.sum()
            if not fits:
                raise DataError(
                    f"has {len(roles)} roles in the manifest, {len(lengths)} texts of at least one token "
                    f"each, and {n} tokens, which is contradictory"
                )
        return roles, lengths

    def _tokens(self, sample: int, data: bytes) -> Int64s:
        with self.manifest.reading(sample, TEXTS):
            ids = np.frombuffer(data, read_token_dtype(self.manifest, sample, TEXTS)).astype(np.int64)
            if ids.max() >= self.tokenizer.vocabulary:
                raise DataError(f"has the id {ids.max()}, but its tokenizer has only {self.tokenizer.vocabulary} ids")
        return ids

    def _words(self, sample: int, data: bytes) -> Int64s:
        with self.manifest.reading(sample, WORDS):
            words = np.frombuffer(data, read_token_dtype(self.manifest, sample, WORDS)).astype(np.int64)
            if (np.diff(words) & ~1).any():  # steps other than 0 or 1
                raise DataError("has word numbers that do not increase by one")
        return words
