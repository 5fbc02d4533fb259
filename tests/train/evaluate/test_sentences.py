import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import TokenGrid
from maskstream.train.evaluate.retrieval import retrieval
from maskstream.train.evaluate.sentences import bm25_scores, halves, sentence_vectors
from maskstream.train.nn.token_model import TokenModelConfig

GRID = TokenGrid(axes=("token",), shape=(40,), patch=(1,))


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
    with pytest.raises(ValueError, match="no tokens"):
        sentence_vectors(model, [np.array([], np.int64)])
    with pytest.raises(ValueError, match="pooling"):
        sentence_vectors(model, [np.array([1])], pooling="last")


def test_bm25_finds_the_other_half_and_rare_ids_count_more():
    rng = np.random.default_rng(1)
    topics = [rng.integers(4 + 10 * n, 14 + 10 * n, 40) for n in range(30)]
    first, second = zip(*(halves(ids, 1, 2, 64) for ids in topics), strict=True)
    scores = bm25_scores(first, second, 400)
    assert retrieval(scores, torch.eye(30, dtype=torch.bool)).mrr == 1
    common, rare = np.array([5]), np.array([9])
    texts = [np.array([5, 6]), np.array([5, 7]), np.array([9, 5])]
    scores = bm25_scores([common, rare], texts, 10)
    assert scores[1, 2] > scores[0].max() > 0
    assert scores[1, 0] == 0


def test_halves_share_no_token_place_and_fit():
    first, second = halves(np.arange(100, 131), 1, 2, 12)
    assert first.tolist() == [1, *range(105, 115), 2]
    assert second.tolist() == [1, *range(115, 125), 2]
