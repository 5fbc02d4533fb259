"""Mixtures: exact proportions, each dataset in epochs of its own, replacement within a dataset, refusals."""

import json
from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines import Loader, VideoClip, masks, mix
from maskstream.pipelines.stream.mix_order import MixOrder, MixSamples
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.pipelines.stream.weights import find_part
from maskstream.shards.errors import ResumeError

from ..sources import source_of

SETTINGS = {
    "clip": VideoClip(frames=2, stride=4, size=32),
    "mask": masks.Random(ratio=0.75),
    "patch": 8,
}


def source(split, **changes):
    return source_of(split, **(SETTINGS | changes))


def loader(source, batch_size=4):
    return Loader(source, batch_size=batch_size, threads=1, device="cpu")


def order_of(sizes, weights, global_batch, **changes):
    parts = tuple(SplitSamples(shard_sizes=(n,), seed=i) for i, n in enumerate(sizes))
    return MixOrder(samples=MixSamples(parts=parts, weights=weights, **changes), global_batch=global_batch)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    weights=st.lists(st.integers(1, 7), min_size=4, max_size=4),
    global_batch=st.integers(1, 12),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_parts_come_in_their_proportion_and_in_whole_epochs_of_their_own(sizes, weights, global_batch, data):
    weights = tuple(weights[: len(sizes)])
    order = order_of(sizes, weights, global_batch, length=data.draw(st.integers(1, 20)))
    batches = [b for epoch in range(3) for b in order.batches(epoch)]
    assert len(batches) == 3 * order.n_batches
    assert all(len(b.indexes) == len(b.epochs) == global_batch for b in batches)
    of = [[find_part(order.samples.starts, i) for i in b.indexes.tolist()] for b in batches]
    for n in range(1, len(batches) + 1):
        counts = Counter(part for batch in of[:n] for part, _ in batch)
        for part, weight in enumerate(weights):
            assert abs(counts[part] - n * global_batch * weight / sum(weights)) <= 1 + len(weights) / 2
    for part, size in enumerate(sizes):
        shown = Counter(
            (epoch, own)
            for batch, b in zip(of, batches, strict=True)
            for (p, own), epoch in zip(batch, b.epochs.tolist(), strict=True)
            if p == part
        )
        assert set(shown.values()) <= {1}
        full, rest = divmod(len(shown), size)
        assert Counter(epoch for epoch, _ in shown) == Counter(
            dict.fromkeys(range(full), size) | ({full: rest} if rest else {})
        )


def test_an_epoch_can_be_entered_anywhere_and_batches_are_shuffled():
    order = order_of((20, 9), (3, 1), 8, length=6)
    whole = [b.indexes.tolist() for b in order.batches(2)]
    for first in range(6):
        assert [b.indexes.tolist() for b in order.batches(2, first)] == whole[first:]
    places = [[int(i) >= 20 for i in batch] for batch in whole]
    assert all(sum(place) == 2 for place in places)
    assert len(set(map(tuple, places))) > 3


def test_a_mixture_gives_what_the_loaders_give_and_says_where_each_is(uneven, split):
    mixed = loader(mix([(source(uneven, seed=1), 3), (source(split, seed=2), 1)], seed=5))
    assert len(mixed) == (53 + 11) // 4
    batches = list(mixed)
    assert all(Counter(key[0] for key in batch.key) == {"u": 3, "c": 1} for batch in batches)
    state = mixed.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert (state["epoch"], state["batch"]) == (1, 0)
    assert state["positions"] == [{"epoch": 0, "sample": 48}, {"epoch": 1, "sample": 5}]
    alone = {}
    for folder, seed, epochs in ((uneven, 1, 1), (split, 2, 2)):
        run = loader(source(folder, seed=seed), batch_size=1)
        for batch in islice(run.repeat(), epochs * len(run)):
            alone.setdefault(batch.key[0], []).append((batch.video[0].numpy().tobytes(), batch.mask.masked[0].tolist()))
    for batch in batches:
        for i, key in enumerate(batch.key):
            assert (batch.video[i].numpy().tobytes(), batch.mask.masked[i].tolist()) in alone[key]
    assert len({key for key in chain.from_iterable(b.key for b in batches) if key[0] == "c"}) == 11


def test_a_bad_sample_is_replaced_by_one_of_its_own_dataset():
    order = order_of((20, 9), (3, 1), 8)
    rng = np.random.default_rng(0)
    assert {find_part(order.samples.starts, order.reserve(22, rng))[0] for _ in range(50)} == {1}
    assert {find_part(order.samples.starts, order.reserve(3, rng))[0] for _ in range(50)} == {0}


def test_a_mixture_resumes_only_as_itself(uneven, split):
    a, b = source(uneven), source(split)
    state = loader(mix([(a, 3), (b, 1)])).state_dict()
    loader(mix([(a, 3), (b, 1)])).load_state_dict(state)
    for other in (mix([(a, 2), (b, 1)]), mix([(b, 3), (a, 1)]), mix([(a, 3), (b, 1)], seed=1), a):
        with pytest.raises(ResumeError, match="saved"):
            loader(other).load_state_dict(state)
    with pytest.raises(ResumeError, match="batches: saved 16, here 5"):
        loader(mix([(a, 3), (b, 1)], batches=5)).load_state_dict(state)


@given(weights=st.lists(st.integers(1, 5), min_size=3, max_size=3), cuts=st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_mixture_is_a_stream_that_can_be_cut_anywhere_and_mixed_again(weights, cuts):
    splits = SplitSamples(shard_sizes=(7,)), SplitSamples(shard_sizes=(4,), seed=3)
    inner = MixSamples(parts=splits, weights=tuple(weights[:2]))
    whole = inner.stream().reader().take(0, 60)
    bounds = sorted({0, 60, *cuts})
    parts = [inner.stream().reader().take(begin, end) for begin, end in pairwise(bounds)]
    assert np.concatenate([part.indexes for part in parts]).tolist() == whole.indexes.tolist()
    assert np.concatenate([part.epochs for part in parts]).tolist() == whole.epochs.tolist()
    outer = MixSamples(parts=(inner, SplitSamples(shard_sizes=(5,), seed=9)), weights=(weights[2], 1)).order(6)
    assert outer.n_samples == 16
    nested = [i for batch in outer.batches(0) for i in batch.indexes[batch.indexes < 11].tolist()]
    assert Counter(nested) == Counter(whole.indexes[: len(nested)].tolist())


def test_a_mixture_of_mixtures_shows_what_its_parts_show(uneven, split):
    inner = mix([(source(uneven, seed=1), 1), (source(split, seed=2), 1)])
    nested = loader(mix([(inner, 1), (source(split, seed=3), 1)], seed=5))
    state = nested.state_dict()
    assert [len(part) for part in (state["sources"], state["sources"][0]["sources"])] == [2, 2]
    keys = [key for batch in nested for key in batch.key]
    assert Counter(key[0] for key in keys)["u"] == len(keys) // 4
    behind = loader(mix([(source(split, seed=3), 1), (inner, 1)], seed=5))
    assert Counter(key[0] for batch in behind for key in batch.key)["u"] == len(keys) // 4
    run = loader(source(uneven, seed=1), batch_size=1)
    alone = {batch.key[0]: batch.video[0].numpy().tobytes() for batch in run}
    batches = list(islice(loader(mix([(inner, 1)])), 3))
    seen = [(key, batch.video[i].numpy().tobytes()) for batch in batches for i, key in enumerate(batch.key)]
    assert all(alone[key] == row for key, row in seen if key[0] == "u")


def test_a_mixture_may_have_a_token_budget(uneven, split):
    mixed = mix([(source(uneven), 3), (source(split), 1)])
    run = Loader(mixed, batch_size=4, steps=5, token_budget=16, threads=1, device="cpu")
    keys = [key for batch in run for key in batch.key]
    assert (len(run), len(keys)) == (5, 5 * 4)
    assert Counter(key[0] for key in keys) == {"u": 15, "c": 5}


@pytest.mark.parametrize("weight", [0, -1, -0.5, float("inf"), float("nan"), True])
def test_weights_are_positive_numbers(split, weight):
    with pytest.raises(ValueError, match="weights must be numbers above 0"):
        mix([(source(split), weight)])


def test_fractions_are_shares_of_the_samples_before_any_batch():
    order = order_of((20, 9, 7), (0.7, 0.2, 0.1), 6)
    for samples in np.random.default_rng(0).integers(0, 10**9, 50).tolist():
        counts = order.taken(samples)
        assert counts.sum() == samples
        assert np.abs(counts - samples * np.array([0.7, 0.2, 0.1])).max() <= 2


def test_what_cannot_be_mixed_is_refused_with_the_reason(split):
    whole = source(split)
    for changes, says in [
        ({"clip": VideoClip(frames=4, stride=4, size=32)}, "clip.frames: 2 and 4"),
        ({"views": 2}, "views: 1 and 2"),
        ({"mask": masks.Random(ratio=0.5)}, "part 1 differs from part 0 in mask"),
        ({"flow": "dis"}, "flow: no and yes"),
        ({"shuffle": False}, "shuffle=True"),
        ({"lanes": 2}, "lanes=1"),
    ]:
        with pytest.raises(ValueError, match=says):
            mix([(whole, 1), (source(split, **changes), 1)])
    with pytest.raises(ValueError, match="cannot be empty"):
        mix([])
    with pytest.raises(ValueError, match="at least one batch"):
        loader(mix([(whole, 1)]), batch_size=12)
