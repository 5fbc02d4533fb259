"""The parts of probes, each against a case that is known or another implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from maskstream.train.evaluate.evaluation import accuracy, compute_mean_average_precision, majority
from maskstream.train.evaluate.features import (
    FOLDS,
    assign_folds,
    fit,
    knn_scores,
    score_attentive,
    score_linear,
    whiten,
)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(n: int, classes: int, seed: int, *, apart: float = 1.5) -> tuple[Tensor, Tensor]:
    """Vectors around a centre per class: (n, 6), and their labels."""
    label = torch.arange(n) % classes
    return apart * draws(classes, 6, seed=99)[label] + draws(n, 6, seed=seed), label


def test_the_nearest_neighbour_decides_if_the_others_are_far() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    has = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = knn_scores(train, has, torch.tensor([[9.0, 0.1], [0.1, 5.0]]), k=10)
    assert found.argmax(dim=1).tolist() == [0, 1]
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))


def test_votes_are_weighted_by_the_exponential_of_the_cosine() -> None:
    train, has = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.eye(2)
    (votes,) = knn_scores(train, has, torch.tensor([[1.0, 0.0]]), k=2)
    assert float(votes[0] / votes[1]) == pytest.approx(np.exp(0.4 / 0.07), rel=1e-4)


def test_whitening_is_that_of_scikit_learn_and_leaves_out_what_does_not_vary() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x, _ = blobs(90, 3, seed=1)
    x = torch.cat((x * torch.tensor([1.0, 10, 1, 1e-2, 1, 3]), x[:, :1]), dim=1)  # the last repeats the first
    pca = decomposition.PCA(whiten=True).fit(x.double().numpy())
    own, other = whiten(x, x[:7] + 1)
    assert own.shape == (90, 6)
    for found, of in ((own, x), (other, x[:7] + 1)):
        expected = pca.transform(of.double().numpy())[:, :6] * (90 / 89) ** 0.5
        np.testing.assert_allclose(found.flip(1).abs().numpy(), np.abs(expected), rtol=1e-3, atol=1e-4)


def test_whitened_neighbours_see_what_varies_little() -> None:
    label = torch.arange(200) % 2
    x = torch.cat((100 * draws(200, 4, seed=1), label[:, None] + 0.1 * draws(200, 1, seed=2)), dim=1)
    x = x @ torch.linalg.qr(draws(5, 5, seed=3))[0]
    has = torch.nn.functional.one_hot(label).float()
    known, asked = x[:150], x[150:]
    plain, whitened = (
        accuracy(knn_scores(a, has[:150], b, 10), label[150:]) for a, b in ((known, asked), whiten(known, asked))
    )
    assert plain < 0.7
    assert whitened > 0.9


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, label = blobs(90, 3, seed=1)
    penalty = 1e-2
    own = fit(x.double(), label, 3, penalty)
    theirs = linear_model.LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000).fit(
        x.double().numpy(), label.numpy()
    )
    np.testing.assert_allclose(own[:-1].T.numpy(), theirs.coef_, atol=2e-4)
    centred = own[-1] - own[-1].mean()
    np.testing.assert_allclose(centred.numpy(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-4)


def test_the_linear_probe_separates_what_can_be_separated_and_is_the_same_each_time() -> None:
    (x, label), (y, other) = blobs(200, 4, seed=2, apart=4), blobs(80, 4, seed=3, apart=4)
    found = score_linear(x, label, y, 4)
    assert accuracy(found, other) > 0.95
    torch.testing.assert_close(found, score_linear(x, label, y, 4), rtol=0, atol=0)


def test_the_penalty_is_chosen_by_held_out_training_samples() -> None:
    """Labels that are noise need a strong penalty; with the weakest alone the probe would be sure of nothing."""
    x, y = draws(60, 40, seed=4), draws(500, 40, seed=5)
    label = (draws(60, seed=6) + 0.3 * x[:, 0] > 0).long()
    chosen = score_linear(x, label, y, 2, penalties=(1e-1, 1e-3, 1e-5))
    weakest = score_linear(x, label, y, 2, penalties=(1e-5,))
    assert chosen.abs().mean() < weakest.abs().mean()


def test_folds_are_runs_of_neighbours_of_each_label() -> None:
    label = torch.tensor([0, 1, 0, 2, 1] * 30 + [3, 3])
    fold = assign_folds(label)
    for n in range(3):
        own = fold[label == n]
        assert own.tolist() == sorted(own.tolist())
        sizes = torch.bincount(own, minlength=FOLDS)
        assert int(sizes.max() - sizes.min()) <= 1
    assert len(set(fold[label == 3].tolist())) == 2
    assert assign_folds(torch.zeros(10, 4)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_like_neighbours_do_not_make_a_weak_penalty_look_good() -> None:
    """The variants of 50 sources, whose labels are noise, are alike: who knows one knows the others, and nothing else.

    Neighbours in one fold leave only a strong penalty; the same samples in another order a weak one.
    """
    x = draws(50, 40, seed=20).repeat_interleave(5, dim=0) + 0.05 * draws(250, 40, seed=21)
    label = (torch.arange(50) % 2).repeat_interleave(5)
    mixed = torch.randperm(250, generator=torch.Generator().manual_seed(22))
    y = draws(500, 40, seed=23)
    apart, leaking = (
        score_linear(x[order], label[order], y, 2, penalties=(10.0, 1e-3)).abs().mean()
        for order in (torch.arange(250), mixed)
    )
    assert leaking > 3 * apart


def test_several_labels_are_learned_each_by_itself() -> None:
    x, y = draws(300, 6, seed=7), draws(200, 6, seed=8)
    has, true = (x[:, :3] > 0.5).float(), (y[:, :3] > 0.5).float()
    assert compute_mean_average_precision(score_linear(x, has, y, 3), true) > 0.95


def test_map_is_that_of_scikit_learn_with_ties() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores = (draws(80, 5, seed=9) * 3).round()
    has = (draws(80, 5, seed=10) > 0.8).float()
    expected = metrics.average_precision_score(has.numpy(), scores.numpy(), average="macro")
    assert compute_mean_average_precision(scores, has) == pytest.approx(expected)


def test_a_class_that_no_sample_has_does_not_count() -> None:
    has = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert compute_mean_average_precision(torch.tensor([[0.9, 0.1], [0.1, 0.9]]), has) == 1
    with pytest.raises(ValueError, match="no sample has a class"):
        compute_mean_average_precision(torch.zeros(2, 2), torch.zeros(2, 2))


def test_the_majority_guesses_the_commonest_class() -> None:
    train, test = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 1, 0, 2])
    assert majority(train, test, 3) == 0.5


def test_the_attentive_probe_finds_the_token_that_a_mean_hides() -> None:
    """One token of twelve, marked by its first value, has the class; all others have noise of the same size."""

    def tokens(n: int, seed: int) -> tuple[Tensor, Tensor]:
        x = 2 * draws(n, 12, 16, seed=seed)
        label = torch.arange(n) % 2
        place = torch.randint(0, 12, (n,), generator=torch.Generator().manual_seed(seed))
        x[:, :, 0] = 0
        x[torch.arange(n), place, 0] = 8
        x[torch.arange(n), place, 1] = 4.0 * (2 * label - 1)
        return x, label

    (x, label), (y, other) = tokens(400, 11), tokens(200, 12)
    found = score_attentive(x, label, y, 2, steps=300)
    assert accuracy(found, other) > 0.9
    assert accuracy(score_linear(x.mean(dim=1), label, y.mean(dim=1), 2), other) < 0.75
    short, same, other = (score_attentive(x, label, y, 2, steps=20, seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(short, same, rtol=0, atol=0)
    assert not torch.equal(short, other)
