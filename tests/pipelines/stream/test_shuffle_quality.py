"""The measures of an order against counting by hand, at both extremes, and for what `block` promises."""

import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipelines.stream.order import Order

MEASURES = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks/shuffle.py"))
expected_quality, shuffle_quality = MEASURES["expected_quality"], MEASURES["shuffle_quality"]
SHARD = np.repeat(np.arange(20), 30)


def counted(indexes, shard, batch_size):
    """The same, one sample after the other."""
    of = [int(shard[i]) for i in indexes]
    same = sum(a == b for a, b in pairwise(of)) / (len(of) - 1)
    batches = [of[at : at + batch_size] for at in range(0, len(of) - batch_size + 1, batch_size)]
    distinct = sum(len(set(batch)) for batch in batches) / len(batches)
    places = [(p - (len(of) - 1) / 2, int(i) - sum(map(int, indexes)) / len(of)) for p, i in enumerate(indexes)]
    both = sum(p * i for p, i in places)
    return both / (sum(p * p for p, _ in places) * sum(i * i for _, i in places)) ** 0.5, same, distinct


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_counting_gives(seed):
    rng = np.random.default_rng(seed)
    shard = np.sort(rng.integers(0, 7, 101))
    indexes = rng.permutation(101)[: rng.integers(50, 101)]
    got = shuffle_quality(indexes, shard, batch_size=8)
    correlation, same, distinct = counted(indexes, shard, 8)
    assert got.position_correlation == pytest.approx(correlation)
    assert got.same_shard_neighbours == pytest.approx(same)
    assert got.shards_per_batch == pytest.approx(distinct)


def test_the_order_of_the_dataset_is_the_one_extreme():
    got = shuffle_quality(np.arange(600), SHARD, batch_size=30)
    assert got.position_correlation == pytest.approx(1)
    assert got.same_shard_neighbours == pytest.approx(1 - 19 / 599)
    assert got.shards_per_batch == 1
    assert shuffle_quality(np.arange(600)[::-1], SHARD, batch_size=30).position_correlation == pytest.approx(-1)


def test_a_permutation_is_the_other_and_has_the_values_that_are_expected_of_it():
    rng = np.random.default_rng(0)
    several = [shuffle_quality(rng.permutation(600), SHARD, batch_size=40) for _ in range(100)]
    expected = expected_quality(SHARD, batch_size=40)
    assert np.mean([abs(q.position_correlation) for q in several]) < 0.06
    assert np.mean([q.same_shard_neighbours for q in several]) == pytest.approx(
        expected.same_shard_neighbours, rel=0.05
    )
    assert np.mean([q.shards_per_batch for q in several]) == pytest.approx(expected.shards_per_batch, rel=0.01)
    assert expected_quality(SHARD, batch_size=600).shards_per_batch == pytest.approx(20)


def test_larger_blocks_shuffle_better_and_one_block_is_a_permutation():
    def quality(block):
        order = Order(shard_sizes=(30,) * 20, global_batch=40, seed=1, block=block)
        several = [shuffle_quality(order.epoch(e), SHARD, batch_size=40) for e in range(20)]
        return [np.mean([getattr(q, f) for q in several]) for f in ("same_shard_neighbours", "shards_per_batch")]

    same, distinct = zip(*(quality(block) for block in (1, 2, 5, 20, None)), strict=True)
    assert list(same[:4]) == sorted(same[:4], reverse=True)
    assert list(distinct[:4]) == sorted(distinct[:4])
    assert same[0] > 0.9
    expected = expected_quality(SHARD, batch_size=40)
    assert same[4] == same[3] == pytest.approx(expected.same_shard_neighbours, rel=0.1)
    assert distinct[4] == distinct[3] == pytest.approx(expected.shards_per_batch, rel=0.02)


@pytest.mark.parametrize("batch_size", [0, 3])
def test_too_few_samples_are_refused(batch_size):
    with pytest.raises(ValueError, match="at least two samples"):
        shuffle_quality(np.arange(2), np.zeros(2, dtype=np.int64), batch_size=batch_size)
