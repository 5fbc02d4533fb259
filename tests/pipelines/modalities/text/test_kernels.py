"""Rows that kernels write against rows that are written here token by token."""

from itertools import pairwise

import numpy as np
import pytest

from maskstream.pipelines.masks.text.words import PADDING, SPECIAL
from maskstream.pipelines.modalities.text.batch import NO_CLASS, unpadded
from maskstream.pipelines.modalities.text.kernels import write_rows
from maskstream.pipelines.modalities.text.packing import RANGES

LENGTH, VOCABULARY, N_CLASSES, PAD = 24, 70_000, 17, 3


def drawn(seed):
    """Some rows of pieces, each of which has values of types of its own."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(5):
        counts, left = [], LENGTH
        while left > 3 and rng.random() < 0.8:
            counts.append(int(rng.integers(1, left - 2)))
            left -= counts[-1] + 2
        rows.append([piece(rng, count) for count in counts])
    return rows


def piece(rng, count):
    kind = np.dtype(rng.choice(["|u1", "<u2", "<u4"]))
    ids = rng.integers(min(VOCABULARY, np.iinfo(kind).max + 1), size=count).astype(kind)
    words = (rng.integers(200) + np.cumsum(rng.integers(2, size=count))).astype(rng.choice(["<u2", "<u4"]))
    classes = rng.choice([*range(N_CLASSES), NO_CLASS], count).astype(rng.choice(["|u1", "<u2"]))
    return ids, words, classes


def written(rows, special, parts, cues=True):
    """What the kernel writes of the first `parts` components; None where it finds values that are not legal."""
    pieces = [one for row in rows for one in row]
    table = np.zeros((len(pieces), RANGES + 2 * parts), np.int64)
    for line, one in zip(table, pieces, strict=True):
        line[1], line[RANGES + 1 :: 2] = len(one[0]), [values.nbytes for values in one[:parts]]
    data = np.frombuffer(b"".join(values.tobytes() for one in pieces for values in one[:parts]), np.uint8)
    found = [np.full((len(rows) + 2, LENGTH), 77, np.int32) for _ in range(3)]
    classes = np.full((len(rows) + 2, LENGTH) if parts > 2 else (0, 0), 77, np.uint8)
    of_words = np.full((len(rows), LENGTH) if cues else (0, 0), 77)
    legal = np.array([*special, PAD, VOCABULARY, N_CLASSES, NO_CLASS, 1 if parts > 1 else -1, 2 if parts > 2 else -1])
    sizes, places = np.array([len(row) for row in rows]), np.arange(len(rows))[::-1] + 1
    good = write_rows(table, sizes, places, legal, data, *found, classes, of_words)
    return [one[places] if one.size else one for one in (*found, classes)] + [of_words] if good else None


def expected(rows, special, parts):
    lines = []
    for row in rows:
        line, before = [], 0
        for number, (ids, words, classes) in enumerate(row):
            words = words.astype(int) if parts > 1 else np.arange(len(ids))
            line += [(special[0], number, -1, NO_CLASS, SPECIAL)] if special[0] >= 0 else []
            for token, word, kind in zip(ids, words - words[0] + before, classes, strict=True):
                line.append((token, number, word, kind, word))
            before += words[-1] - words[0] + 1
            line += [(special[1], number, -1, NO_CLASS, SPECIAL)] if special[1] >= 0 else []
        lines.append(line + [(PAD, -1, -1, NO_CLASS, PADDING)] * (LENGTH - len(line)))
    return np.moveaxis(np.array(lines, np.int64), 2, 0)


@pytest.mark.parametrize("special", [(1, 2), (-1, -1), (5, -1)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_rows_hold_the_values_of_their_pieces(special, parts):
    for seed in range(8):
        rows = drawn(seed)
        found = written(rows, special, parts)
        for name, (one, other) in enumerate(zip(found, expected(rows, special, parts), strict=True)):
            if one.size:
                np.testing.assert_array_equal(one, other, err_msg=str(name))


@pytest.mark.parametrize(
    ("part", "kind", "value"),
    [(0, "<u4", VOCABULARY), (0, "<u4", 2**32 - 1), (1, "<u2", 65_535), (1, "|u1", 0), (2, "|u1", N_CLASSES)],
)
def test_values_that_are_not_legal_are_found(part, kind, value):
    ids = np.arange(9, dtype="<u2")
    good = [ids, (200 + ids).astype("<u2"), ids.astype("|u1")]
    assert written([[tuple(good)]], (1, 2), 3) is not None
    good[part] = good[part].astype(kind)
    good[part][4] = value
    assert written([[tuple(good)]], (1, 2), 3) is None


def test_large_numbers_of_classes_are_not_cut():
    ids = np.arange(3, dtype="<u2")
    assert written([[(ids, ids, np.array([1, 65_536 + 3, 2], "<u4"))]], (1, 2), 3) is None


def test_unpadded_rows_are_the_documents():
    rng = np.random.default_rng(0)
    documents = np.sort(rng.integers(-1, 3, (6, 20)), axis=1)[:, ::-1].astype(np.int32)
    documents[2], documents[3] = -1, 0
    tokens = rng.integers(100, size=documents.shape, dtype=np.int32)
    lengths, found = unpadded(tokens, documents)
    kept = np.flatnonzero(documents >= 0)
    named = [(place // 20, documents.flat[place]) for place in kept.tolist()]
    begins = [n for n, one in enumerate(named) if n == 0 or one != named[n - 1]]
    edges = [*begins, len(kept)]
    np.testing.assert_array_equal(lengths, (documents >= 0).sum(1))
    np.testing.assert_array_equal(found.index, kept)
    np.testing.assert_array_equal(found.tokens, tokens.flat[kept])
    np.testing.assert_array_equal(found.cu_seqlens, edges)
    np.testing.assert_array_equal(found.positions, [n for a, b in pairwise(edges) for n in range(b - a)])
    assert found.longest == max(np.diff(edges))


def test_rows_of_padding_have_no_documents():
    lengths, found = unpadded(np.zeros((2, 4), np.int32), np.full((2, 4), -1, np.int32))
    assert (lengths.tolist(), found.cu_seqlens.tolist(), found.longest) == ([0, 0], [0], 0)
