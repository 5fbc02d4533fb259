"""Weighted sampling: how often samples come, that repeats are drawn anew, and that every topology agrees."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.pipelines import Loader, VideoClip, VideoData, mix, video_loader
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.order import Order, Weights
from maskstream.shards.errors import ResumeError, ShardError
from maskstream.shards.format.manifest import Manifest


@given(
    values=st.lists(st.one_of(st.just(0.0), st.floats(0.01, 100)), min_size=1, max_size=60).filter(any),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)
def test_a_sample_comes_as_often_as_its_weight_says(values, seed, epoch):
    weights, n = Weights(np.array(values)), len(values)
    counts = weights.counts(seed, epoch)
    wanted = np.array(values) * n / np.sum(values)
    assert counts.sum() == n
    assert (np.abs(counts - wanted) < 1 + 1e-6).all()
    assert counts.max() <= weights.repeats
    assert not counts[np.array(values) == 0].any()


def test_the_mean_over_epochs_is_the_weight():
    values = np.array([0.5, 3.0, 0.25, 1.25, 0.0, 1.0])
    mean = np.mean([Weights(values).counts(0, epoch) for epoch in range(4000)], axis=0)
    np.testing.assert_allclose(mean, values, atol=0.04)


@pytest.mark.parametrize("block", [None, 2])
def test_an_epoch_has_its_counts_and_every_repeat_another_number(block):
    values = np.arange(60) % 7
    order = Order(shard_sizes=(20, 5, 15, 20), global_batch=4, seed=3, block=block, weights=Weights(values))
    seen = set()
    for epoch in range(5):
        batches = list(order.batches(epoch))
        indexes = np.concatenate([batch.indexes for batch in batches])
        numbers = np.concatenate([batch.epochs for batch in batches])
        assert (np.bincount(indexes, minlength=60) == Weights(values).counts(3, epoch)).all()
        pairs = set(zip(indexes.tolist(), numbers.tolist(), strict=True))
        assert len(pairs) == 60
        assert not pairs & seen
        seen |= pairs
        later = next(iter(order.batches(epoch, 7)))
        assert (later.indexes == batches[7].indexes).all()
    taken = order.reader().take(50, 130)
    whole = [order.compose_epoch_batch(epoch) for epoch in range(3)]
    assert (taken.indexes == np.concatenate([one.indexes for one in whole])[50:130]).all()
    assert (taken.epochs == np.concatenate([one.epochs for one in whole])[50:130]).all()
    replaced = {order.reserve(0, np.random.default_rng(n)) for n in range(300)}
    assert all(values[index] for index in replaced)


def loader_of(split, **options):
    clip = VideoClip(frames=2, stride=4, size=32)
    return video_loader(split, clip=clip, **{"batch_size": 4, "seed": 1, "rank": 0, "world_size": 1, **options})


def keys_of(batches):
    return [key for batch in batches for key in batch.key]


def test_ranks_and_resume_see_the_same(split):
    values = [0, 0, 4, 1, 1, 1, 1, 1, 1, 1, 2]
    whole = loader_of(split, batch_size=4, weights=values)
    wanted = [(batch.key, batch.pts_s.tolist()) for batch in (*whole, *whole)]
    ranks = [loader_of(split, batch_size=2, weights=values, rank=rank, world_size=2) for rank in range(2)]
    both = list(zip(*([*one, *one] for one in ranks), strict=True))
    assert [a.key + b.key for a, b in both] == [keys for keys, _ in wanted]
    again = loader_of(split, weights=values)
    batches = iter(again)
    next(batches)
    state = again.state_dict()
    batches.close()
    resumed = loader_of(split, weights=values)
    resumed.load_state_dict(json.loads(json.dumps(state)))
    assert [(batch.key, batch.pts_s.tolist()) for batch in resumed] == wanted[1 : len(whole)]
    with pytest.raises(ResumeError, match="weights"):
        loader_of(split, weights=[*values[:-1], 3]).load_state_dict(state)
    with pytest.raises(ResumeError, match="weights"):
        loader_of(split).load_state_dict(state)


def test_a_repeated_sample_is_another_clip(split):
    weights = np.zeros(11)
    weights[2] = 1
    starts = [
        round(30 * float(t)) for batch in loader_of(split, weights=weights, batch_size=11) for t in batch.pts_s[:, 0]
    ]
    assert len(starts) == 11
    assert len(set(starts)) > 3


def test_where_weights_come_from(split, tmp_path):
    manifest = Manifest.load(split)
    keys, label = manifest.keys(range(11)), manifest.label
    balanced = replace(Split.open(split, "video"), weights="balanced").samples.weights.values
    sums = [balanced[label == one].sum() for one in range(3)]
    np.testing.assert_allclose(sums, 1.0)
    (tmp_path / "w.csv").write_text(f"weight,key\n2,{keys[3]}\n1,{keys[0]}\n")
    assert set(keys_of(loader_of(split, weights=tmp_path / "w.csv"))) == {keys[0], keys[3]}
    np.save(tmp_path / "w.npy", np.eye(11, dtype=np.float32)[5])
    assert set(keys_of(loader_of(split, weights=str(tmp_path / "w.npy")))) == {keys[5]}
    durations = replace(Split.open(split, "video"), weights="n_frames").samples.weights.values
    assert durations.tolist() == [40 + n for n in range(11)]
    parts = [(VideoData(clip=VideoClip(frames=2, size=32)).source(replace(Split.open(split, "video"), weights=w)), 1)
             for w in (np.eye(11)[1], np.eye(11)[2])]  # fmt: skip
    assert set(keys_of(Loader(mix(parts, batches=2), batch_size=4, rank=0, world_size=1))) == {keys[1], keys[2]}


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1, 2], "2 weights for 11 samples"),
        ([-1.0] * 11, "finite numbers of at least 0"),
        ([0.0] * 11, "not all 0"),
        ([float("nan")] * 11, "finite numbers"),
        ("none.csv", "is not a csv file with the columns key and weight"),
        ("none.npy", "is not a file of numbers"),
    ],
)
def test_weights_that_are_none(split, weights, says):
    with pytest.raises(ValueError, match=says):
        loader_of(split, weights=weights)


def test_weights_that_do_not_fit(split, tmp_path):
    with pytest.raises(ValueError, match="weights need shuffle=True and lanes=1"):
        loader_of(split, weights="balanced", shuffle=False)
    with pytest.raises(ShardError, match=r"weights='quality': the json of sample 'clip\d' has no such number"):
        loader_of(split, weights="quality")
    (tmp_path / "w.csv").write_text("key,weight\nnone,1\n")
    with pytest.raises(ValueError, match="has the key 'none', which is not in the split"):
        loader_of(split, weights=tmp_path / "w.csv")
    (tmp_path / "w.csv").write_text("key,weight\nclip1,1\nclip2,1\nclip1,3\n")
    with pytest.raises(ValueError, match="has the key 'clip1' on several lines; keep only one of them"):
        loader_of(split, weights=tmp_path / "w.csv")
