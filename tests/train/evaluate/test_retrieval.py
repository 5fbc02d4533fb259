"""Retrieval figures of rankings that are made by hand."""

from __future__ import annotations

import pytest
import torch

from maskstream.train.evaluate.retrieval import cosine_scores, retrieval


def test_the_figures_are_those_of_the_ranks_counted_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    relevant = torch.zeros(3, 4, dtype=torch.bool)
    relevant[0, 0] = True  # rank 1
    relevant[1, 1] = relevant[1, 0] = True  # ranks 3 and 4
    relevant[2, 2] = True  # rank 3
    found = retrieval(scores, relevant, ks=(1, 3, 100))
    assert found.mrr == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found.recall == pytest.approx({1: 1 / 3, 3: (1 + 1 / 2 + 1) / 3, 100: 1.0})
    assert found.queries == 3


def test_a_query_without_a_relevant_document_does_not_count() -> None:
    relevant = torch.tensor([[True, False], [False, False]])
    found = retrieval(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), relevant)
    assert (found.mrr, found.queries) == (1.0, 1)


@pytest.mark.parametrize("at", [0, 4, 9])
def test_equal_scores_put_the_relevant_document_last(at: int) -> None:
    relevant = torch.zeros(1, 10, dtype=torch.bool)
    relevant[0, at] = True
    assert retrieval(torch.zeros(1, 10), relevant).mrr == pytest.approx(0.1)


def test_cosines_do_not_depend_on_lengths() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    expected = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(cosine_scores(vectors, 7 * vectors), expected)


@pytest.mark.parametrize(
    ("scores", "relevant", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool), r"\(2, 4\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), "torch.float32"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), "no query"),
        (torch.full((1, 2), torch.nan), torch.ones(1, 2, dtype=torch.bool), "NaN"),
    ],
)
def test_errors_name_what_is_wrong(scores: torch.Tensor, relevant: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        retrieval(scores, relevant)


def test_recall_needs_a_k_of_one_or_more() -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        retrieval(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), ks=(0, 1))
