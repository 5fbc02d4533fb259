"""Rows of documents, packed by their lengths."""

import numpy as np
import pytest

from maskstream.pipelines.modalities.text.packing import pack_one_a_row, packed


def lengths_of(seed, n, most):
    return np.random.default_rng(seed).integers(0, most, n)


@pytest.mark.parametrize(("room", "most"), [(16, 10), (16, 70), (128, 60), (5, 30)])
def test_every_token_is_in_one_row_and_no_row_is_too_long(room, most):
    lengths, shards = lengths_of(room, 90, most), np.array([40, 0, 50])
    packing = packed(lengths, shards, room, extra=2)
    seen = [np.zeros(n, int) for n in lengths]
    for row in range(len(packing)):
        pieces = packing.row(row)
        assert pieces
        assert sum(count + 2 for _, _, count in pieces) <= room
        for sample, first, count in pieces:
            seen[sample][first : first + count] += 1
    assert all((one == 1).all() for one in seen)


def test_a_row_is_of_one_shard():
    lengths, shards = lengths_of(1, 60, 9), np.array([20, 25, 15])
    packing = packed(lengths, shards, 32, extra=2)
    assert len(packing) == packing.shard_rows.sum()
    edges, row = np.cumsum([0, *shards]), 0
    for shard, rows in enumerate(packing.shard_rows.tolist()):
        for _ in range(rows):
            assert all(edges[shard] <= sample < edges[shard + 1] for sample, _, _ in packing.row(row))
            row += 1


def test_rows_are_nearly_full():
    lengths = lengths_of(2, 2000, 40) + 1
    packing = packed(lengths, np.array([2000]), 128, extra=2)
    assert (lengths.sum() + 2 * len(lengths)) / (128 * len(packing)) > 0.98


def test_a_known_packing():
    packing = packed(np.array([3, 6, 2, 1, 0]), np.array([5]), 8, extra=1)
    rows = [[(s, n) for s, _, n in packing.row(i)] for i in range(len(packing))]
    assert rows == [[(0, 3), (2, 2)], [(1, 6)], [(3, 1)]]


def test_the_pieces_of_many_rows_are_those_of_each():
    packing = packed(lengths_of(3, 60, 40), np.array([25, 35]), 16, extra=2)
    numbers = np.random.default_rng(0).integers(len(packing), size=50)
    row, piece = packing.rows(numbers)
    for at, number in enumerate(numbers):
        columns = (column[piece[row == at]].tolist() for column in (packing.sample, packing.first, packing.count))
        assert list(zip(*columns, strict=True)) == packing.row(number)


def test_one_document_a_row_is_whole():
    packing = pack_one_a_row(np.array([3, 900]), np.array([1, 1]))
    assert packing.row(1) == [(1, 0, 900)]
    assert packing.shard_rows.tolist() == [1, 1]


def test_a_row_without_room_is_refused():
    with pytest.raises(ValueError, match="has no room"):
        packed(np.array([3]), np.array([1]), 2, extra=2)
