"""The order: a permutation, the same for every topology, balanced over lanes, different in every epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines.stream.order import Order, rank_share

SIZES = (5, 1, 9, 4, 7, 2, 8, 3)


@given(
    sizes=st.lists(st.integers(0, 9), min_size=4, max_size=12),
    lanes=st.sampled_from([1, 2, 4]),
    share=st.integers(1, 3),
    block=st.sampled_from([None, 1, 2, 5]),
    epoch=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_an_epoch_holds_each_sample_at_most_once_and_leaves_out_less_than_it_must(sizes, lanes, share, block, epoch):
    try:
        order = Order(shard_sizes=tuple(sizes), global_batch=lanes * share, seed=3, lanes=lanes, block=block)
    except ValueError as error:
        assert "do not fill one global batch" in str(error)
        return
    indexes = order.epoch(epoch)
    assert len(indexes) == order.n_batches * order.global_batch
    assert len(np.unique(indexes)) == len(indexes)
    assert indexes.min() >= 0
    assert indexes.max() < sum(sizes)
    if lanes == 1:
        assert sum(sizes) - len(indexes) < order.global_batch


def test_epochs_and_seeds_differ_and_the_same_one_repeats():
    order = Order(shard_sizes=SIZES, global_batch=4, seed=1)
    assert np.array_equal(order.epoch(2), order.epoch(2))
    assert not np.array_equal(order.epoch(2), order.epoch(3))
    assert not np.array_equal(order.epoch(2), Order(shard_sizes=SIZES, global_batch=4, seed=2).epoch(2))
    assert not np.array_equal(np.sort(order.epoch(0)), order.epoch(0))


def test_what_an_epoch_leaves_out_rotates():
    order = Order(shard_sizes=(7, 6), global_batch=4, seed=0)
    left = [frozenset(set(range(13)) - set(order.epoch(e).tolist())) for e in range(40)]
    assert len(set(left)) > 5
    assert set().union(*left) == set(range(13))


def test_each_global_batch_takes_the_same_number_from_every_lane_and_lanes_keep_their_shards():
    order = Order(shard_sizes=SIZES, global_batch=6, seed=5, lanes=3, block=2)
    shard_of = np.repeat(np.arange(len(SIZES)), SIZES)
    seen: list[set[int]] = [set(), set(), set()]
    for epoch in range(4):
        for batch in order.epoch(epoch).reshape(-1, 3, 2):
            for lane in range(3):
                seen[lane] |= set(shard_of[batch[lane]].tolist())
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert not seen[0] & seen[2]
    sizes = [sum(SIZES[s] for s in lane) for lane in seen]
    assert max(sizes) - min(sizes) <= max(SIZES)


def test_a_block_mixes_only_its_own_shards():
    order = Order(shard_sizes=(10,) * 6, global_batch=10, seed=0, block=2)
    shard_of = np.repeat(np.arange(6), 10)
    for block in order.epoch(1).reshape(3, 20):
        assert len(np.unique(shard_of[block])) == 2
        assert not np.array_equal(block, np.sort(block))


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_a_batch_exactly_whatever_their_number(world_size):
    batch = np.arange(12)
    shares = [rank_share(batch, rank, world_size) for rank in range(world_size)]
    assert np.array_equal(np.concatenate([s for s, _ in shares]), batch)
    assert all((w == 1).all() for _, w in shares)


def test_validation_sees_each_sample_once_and_pads_with_weight_zero():
    order = Order(shard_sizes=(5, 6), global_batch=8, shuffle=False)
    assert order.n_batches == 2
    indexes = order.epoch(7)
    assert np.array_equal(indexes, np.arange(11))
    shares = [rank_share(indexes[8:], rank, 2) for rank in range(2)]
    assert [len(s) for s, _ in shares] == [2, 2]
    counted = np.concatenate([s[w > 0] for s, w in shares])
    assert np.array_equal(counted, np.arange(8, 11))


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"global_batch": 0}, "global_batch must be at least 1, got 0"),
        ({"global_batch": 4, "lanes": 3}, "cannot be divided evenly into 3 lanes"),
        ({"global_batch": 16, "lanes": 16}, "at most one lane per shard"),
        ({"global_batch": 4, "block": 0}, "None for all"),
        ({"global_batch": 400}, "lower batch_size"),
    ],
)
def test_impossible_orders_are_refused_with_the_remedy(settings_, says):
    with pytest.raises(ValueError, match=says):
        Order(shard_sizes=SIZES, **settings_)
