"""Vectors of documents, and figures of rankings that are made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import TokenGrid
from maskstream.train.evaluate.retrieval import (
    bm25_scores,
    cosine_scores,
    measure_ranking,
    sentence_vectors,
    split_in_halves,
)
from maskstream.train.nn.token_model import TokenModelConfig

GRID = TokenGrid(axes=("token",), shape=(40,), patch=(1,))


def test_the_figures_are_those_of_the_ranks_counted_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    relevant = torch.zeros(3, 4, dtype=torch.bool)
    relevant[0, 0] = True  # rank 1
    relevant[1, 1] = relevant[1, 0] = True  # ranks 3 and 4
    relevant[2, 2] = True  # rank 3
    found = measure_ranking(scores, relevant, ks=(1, 3, 100))
    assert found.mrr == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found.recall == pytest.approx({1: 1 / 3, 3: (1 + 1 / 2 + 1) / 3, 100: 1.0})
    assert found.queries == 3


def test_a_query_without_a_relevant_document_does_not_count() -> None:
    relevant = torch.tensor([[True, False], [False, False]])
    found = measure_ranking(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), relevant)
    assert (found.mrr, found.queries) == (1.0, 1)


@pytest.mark.parametrize("at", [0, 4, 9])
def test_equal_scores_put_the_relevant_document_last(at: int) -> None:
    relevant = torch.zeros(1, 10, dtype=torch.bool)
    relevant[0, at] = True
    assert measure_ranking(torch.zeros(1, 10), relevant).mrr == pytest.approx(0.1)


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
        measure_ranking(scores, relevant)


def test_recall_needs_a_k_of_one_or_more() -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        measure_ranking(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), ks=(0, 1))


def documents(n, rng):
    return [np.concatenate(([1], rng.integers(4, 50, rng.integers(1, 30)), [2])) for _ in range(n)]


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_vector_is_that_of_the_document_alone(pooling):
    texts = documents(70, np.random.default_rng(0))
    model = TokenModelConfig(vocabulary=50, width=16, depth=2, heads=2).build({"text": GRID}, seed=0)
    together = sentence_vectors(model, texts, pooling=pooling)
    for n in (0, 69):
        alone = sentence_vectors(model, texts[n : n + 1], pooling=pooling)[0]
        assert torch.allclose(together[n], alone, atol=1e-5)
    x = model.encode_ids(torch.from_numpy(texts[3]), torch.arange(len(texts[3])), torch.tensor([0, len(texts[3])]), 40)
    expected = x[0] if pooling == "first" else x.mean(0)
    assert torch.allclose(together[3], expected, atol=1e-5)


def test_wrong_documents_are_refused():
    model = TokenModelConfig(vocabulary=50, width=16, depth=1, heads=2).build({"text": GRID})
    with pytest.raises(ValueError, match="without tokens"):
        sentence_vectors(model, [np.array([], np.int64)])
    with pytest.raises(ValueError, match="pooling"):
        sentence_vectors(model, [np.array([1])], pooling="last")


def test_bm25_finds_the_other_half_and_rare_ids_count_more():
    rng = np.random.default_rng(1)
    topics = [rng.integers(4 + 10 * n, 14 + 10 * n, 40) for n in range(30)]
    first, second = zip(*(split_in_halves(ids, 1, 2, 64) for ids in topics), strict=True)
    scores = bm25_scores(first, second, 400)
    assert measure_ranking(scores, torch.eye(30, dtype=torch.bool)).mrr == 1
    common, rare = np.array([5]), np.array([9])
    texts = [np.array([5, 6]), np.array([5, 7]), np.array([9, 5])]
    scores = bm25_scores([common, rare], texts, 10)
    assert scores[1, 2] > scores[0].max() > 0
    assert scores[1, 0] == 0


def test_halves_share_no_token_place_and_fit():
    first, second = split_in_halves(np.arange(100, 131), 1, 2, 12)
    assert first.tolist() == [1, *range(105, 115), 2]
    assert second.tolist() == [1, *range(115, 125), 2]
