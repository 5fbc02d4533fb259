"""Counts of ids and of their neighbours."""

import numpy as np
import pytest

from maskstream.train.evaluate.hidden_ids import NGrams, neighbours

from ..text_batches import CLS, SEP, VOCABULARY, made_up


@pytest.fixture
def counts():
    return NGrams.of([made_up(), made_up(seed=1)], VOCABULARY)


def test_pairs_are_counted_within_documents(counts):
    batches = [made_up(), made_up(seed=1)]
    assert counts.single.sum() == VOCABULARY + sum(len(b.unpadded.tokens) for b in batches)
    documents = sum(len(b.unpadded.cu_seqlens) - 1 for b in batches)
    assert counts.pairs.sum() == sum(len(b.unpadded.tokens) for b in batches) - documents
    assert counts.pairs[SEP].sum() == 0
    assert counts.pairs[:, CLS].sum() == 0


@pytest.mark.parametrize(("left", "right"), [(CLS, SEP), (-1, 9), (7, -1), (-1, -1)])
def test_probabilities_add_up_to_one(counts, left, right):
    ids = np.arange(VOCABULARY)
    losses = counts.beside(ids, np.full(VOCABULARY, left), np.full(VOCABULARY, right), 10.0)
    assert np.exp(-losses).sum() == pytest.approx(1)
    assert np.exp(-counts.alone(ids)).sum() == pytest.approx(1)
    if left == right == -1:
        assert np.allclose(losses, counts.alone(ids))


def test_a_pair_that_was_seen_is_likelier(counts):
    left, right = np.argwhere(counts.pairs > 0)[5]
    seen, unseen = counts.beside(np.array([right, right]), np.array([left, -1]), np.array([-1, -1]), 10.0)
    assert seen < unseen


def test_neighbours_are_visible_tokens_of_the_same_document():
    batch = made_up()
    ids, left, right = neighbours(batch)
    at = [(row, col) for row in range(len(batch)) for col in batch.mask.masked[row].nonzero()[:, 0].tolist()]
    assert ids.tolist() == [int(batch.tokens[row, col]) for row, col in at]
    for n, (row, col) in enumerate(at):
        for found, beside in ((left[n], col - 1), (right[n], col + 1)):
            hidden = bool(batch.mask.masked[row, beside])
            assert found == (-1 if hidden else int(batch.tokens[row, beside]))
