"""Iterative decoding: what stays, what is filled in and when, and that a seed decides it."""

from math import cos, floor, pi

import pytest
import torch

from maskstream.train.evaluate.hidden_ids import fill_in

K, N = 5, 64


class Recorder:
    """Predicts the id n % K at cell n with all but certainty, more so for low n, and notes how many were hidden."""

    def __init__(self):
        self.counts = []

    def __call__(self, ids, hidden, m):
        assert hidden.sum(dim=1).tolist() == [m] * len(ids)
        self.counts.append(m)
        places = hidden.nonzero()[:, 1].view(len(ids), m)
        scale = 8 - 4 * places / N
        return torch.nn.functional.one_hot(places % K, K) * scale[:, :, None]


def test_all_hidden_ids_are_filled_in_and_the_others_stay():
    ids = torch.full((3, N), 4)
    hidden = torch.zeros(3, N, dtype=torch.bool)
    hidden[:, 10:50] = True
    made = fill_in(
        lambda x, h, m: torch.full((len(x), m, K), -20.0).index_fill(2, torch.tensor([2]), 20.0), ids, hidden
    )
    assert torch.equal(made, torch.where(hidden, 2, 4))


def test_the_rounds_follow_the_cosine():
    predict = Recorder()
    fill_in(predict, torch.zeros(2, N, dtype=torch.int64), torch.ones(2, N, dtype=torch.bool), rounds=8)
    left = [floor(N * cos(pi / 2 * r / 8)) for r in range(1, 8)]
    assert predict.counts == [N, *left]


def test_every_round_fills_in_at_least_one():
    predict = Recorder()
    hidden = torch.zeros(2, N, dtype=torch.bool)
    hidden[:, :3] = True
    fill_in(predict, torch.zeros(2, N, dtype=torch.int64), hidden, rounds=12)
    assert predict.counts == [3, 2, 1]


def test_the_most_certain_are_filled_in_first():
    seen = []

    def predict(ids, hidden, m):
        seen.append(hidden.clone())
        places = hidden.nonzero()[:, 1].view(len(ids), m)
        return torch.nn.functional.one_hot(places % K, K) * torch.where(places < N // 2, 14, 4)[:, :, None]

    ids, hidden = torch.zeros(2, N, dtype=torch.int64), torch.ones(2, N, dtype=torch.bool)
    made = fill_in(predict, ids, hidden, temperature=0)
    assert torch.equal(made[:, : N // 2], (torch.arange(N // 2) % K).expand(2, -1))
    early = [hidden for hidden in seen if hidden[0].sum() >= N // 2]
    assert len(early) > 3
    assert all(hidden[:, N // 2 :].all() for hidden in early)


def test_a_seed_decides_what_is_drawn():
    ids, hidden = torch.zeros(4, N, dtype=torch.int64), torch.ones(4, N, dtype=torch.bool)
    flat = lambda x, h, m: torch.zeros(len(x), m, K)  # noqa: E731
    first = fill_in(flat, ids, hidden, seed=3)
    assert torch.equal(first, fill_in(flat, ids, hidden, seed=3))
    assert not torch.equal(first, fill_in(flat, ids, hidden, seed=4))
    assert first.unique().tolist() == list(range(K))
    hidden[0, 0] = False
    with pytest.raises(ValueError, match="the same number of hidden ids"):
        fill_in(flat, ids, hidden)
