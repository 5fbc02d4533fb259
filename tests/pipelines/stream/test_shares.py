"""Mixtures by schedules: counts are integrals of the weights, at any place, at any topology, and refused otherwise."""

from collections import Counter
from functools import partial
from itertools import accumulate, islice
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines import BySize, Loader, masks, mix
from maskstream.pipelines.masks import Linear, Piecewise
from maskstream.pipelines.stream.mix_order import MixOrder, MixSamples
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.pipelines.stream.weights import find_part
from maskstream.shards.errors import ResumeError

from ..contract import check_relay
from .test_mix import loader, source


def order_of(sizes, weights, global_batch, steps, epochs=None):
    parts = tuple(SplitSamples(shard_sizes=(n,), seed=i) for i, n in enumerate(sizes))
    return MixSamples(parts=parts, weights=weights, epochs=epochs).order(global_batch, steps)


def walked(weights, sizes, limits, samples):
    """What each part has given before each of so many samples, by adding up its shares, float (samples + 1, parts)."""
    given = np.zeros((samples + 1, len(weights)))
    for n in range(samples):
        values = np.array(
            [
                0.0 if most is not None and given[n, k] >= most - 0.5 else weight((n + 0.5) / samples, size)
                for k, (weight, size, most) in enumerate(zip(weights, sizes, limits, strict=True))
            ]
        )
        given[n + 1] = given[n] + values / values.sum()
    return given


SCHEDULES = st.one_of(
    st.integers(1, 9),
    st.builds(Linear, start=st.floats(0.1, 9), end=st.floats(0, 9)),
    st.builds(
        lambda places, values: Piecewise(points=tuple(zip(sorted(places), values, strict=False))),
        st.lists(st.floats(0, 1), min_size=1, max_size=4),
        st.lists(st.floats(0.1, 9), min_size=4, max_size=4),
    ),
    st.builds(
        BySize, temperature=st.one_of(st.floats(0.5, 5), st.builds(Linear, start=st.just(1.0), end=st.just(9.0)))
    ),
)


def value_of(weight):
    if isinstance(weight, BySize):
        warm = weight.temperature
        return lambda p, size: size ** (1 / (warm.at(p) if isinstance(warm, Linear) else warm))
    return lambda p, size: weight if isinstance(weight, int) else weight.at(p)


@given(
    weights=st.lists(SCHEDULES, min_size=1, max_size=4),
    sizes=st.lists(st.integers(5, 40), min_size=4, max_size=4),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_the_integrals_of_the_weights(weights, sizes, data):
    weights, sizes = (*weights, 3), [*sizes[: len(weights)], 7]
    epochs = [data.draw(st.sampled_from([None, 0.5, 1, 3])) for _ in weights[:-1]] + [None]
    order = order_of(sizes, weights, 4, 60, tuple(epochs))
    limits = [None if e is None else round(e * n) for e, n in zip(epochs, sizes, strict=True)]
    wanted = walked([value_of(w) for w in weights], sizes, limits, 240)
    counts = np.array([order.taken(n) for n in range(300)])
    assert (counts.sum(axis=1) == np.arange(300)).all()
    assert (np.diff(counts, axis=0) >= 0).all()
    assert np.abs(counts[:241] - wanted).max() <= 1 + len(weights) / 2
    for part, most in enumerate(limits):
        assert most is None or counts[-1, part] <= most
    parts = order.shares.parts(17, 117)
    assert (np.bincount(parts, minlength=len(weights)) == counts[117] - counts[17]).all()
    assert (order.shares.parts(40, 50) == parts[23:33]).all()


def test_fifty_random_batches_of_a_long_run_begin_where_the_integral_says():
    steps, batch = 1_000_000, 1024
    a, b = Linear(start=0.9, end=0.1), Piecewise(points=((0.0, 0.5), (0.25, 0.5), (0.25, 1.5)))
    order = order_of((10**7, 10**6), (a, b), batch, steps)

    def share(p, q, other):
        """The integral of a / (a + other) over [p, q], in closed form."""
        start, slope = 0.9, -0.8
        whole = start + other
        return (q - p) - other / slope * log((whole + slope * q) / (whole + slope * p))

    for number in np.random.default_rng(0).integers(0, steps, 50).tolist():
        p = number / steps
        first = share(0.0, min(p, 0.25), 0.5) + (share(0.25, p, 1.5) if p > 0.25 else 0.0)
        counts = order.taken(number * batch)
        assert counts.sum() == number * batch
        # The integral is of straight lines between 2,048 points, which are at most 1e-7 of the run off the curve.
        assert abs(counts[0] - first * steps * batch) <= 2 + 1e-7 * steps * batch


def test_a_source_ends_after_its_epochs_and_the_others_give_what_it_gave():
    order = order_of((10, 40, 40), (8, 1, 1), 5, None, (2, None, None))
    batches = [b for epoch in range(3) for b in order.batches(epoch)]
    of = [find_part(order.samples.starts, i)[0] for b in batches for i in b.indexes.tolist()]
    assert Counter(of) == {0: 20, 1: 125, 2: 125}
    shown = Counter(
        (i, e) for b in batches for i, e in zip(b.indexes.tolist(), b.epochs.tolist(), strict=True) if i < 10
    )
    assert sorted(shown) == [(i, e) for i in range(10) for e in range(2)]
    assert set(of[30:]) == {1, 2}
    assert order.position(2, 17)["positions"][0] == {"epoch": 2, "sample": 0}


def test_temperature_makes_sources_equal():
    sizes = (1000, 10)
    shares = []
    for temperature in (1.0, 2.0, 1000.0):
        order = order_of(sizes, (BySize(temperature=temperature),) * 2, 10, None)
        shares.append(int(order.taken(10_100)[1]))
    assert shares == pytest.approx([100, 10_100 / 11, 5050], abs=20)


def test_a_mixture_inside_another_follows_its_own_samples():
    inner = MixSamples(
        parts=(SplitSamples(shard_sizes=(50,)), SplitSamples(shard_sizes=(50,), seed=1)),
        weights=(Linear(start=1.0, end=0.0), Linear(start=0.0, end=1.0)),
    )
    outer = MixSamples(parts=(inner, SplitSamples(shard_sizes=(30,), seed=2)), weights=(3, 1))
    order = outer.order(8, 50)
    drawn = np.concatenate([b.indexes for epoch in range(4) for b in order.batches(epoch)])[:400]
    own = drawn[drawn < 100]
    assert len(own) == 300
    for at in (75, 150, 225, 300):  # of a line from 1 to 0: n - n^2 / 2 N
        assert abs(np.count_nonzero(own[:at] < 50) - (at - at * at / 600)) <= 4
    assert order.batches(2, 3).__next__().indexes.tolist() == drawn[(2 * order.n_batches + 3) * 8 :][:8].tolist()


def run_of(uneven, split, *, weight=None, **options):
    weight = weight or Linear(start=0.9, end=0.1)
    mixed = mix([(source(uneven, seed=1), weight), (source(split, seed=2), Linear(start=0.1, end=0.9))], seed=5)
    return Loader(mixed, **{"batch_size": 6, "steps": 24, "threads": 1, "device": "cpu"} | options)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_by_schedules_resumes_at_other_ranks(uneven, split, workers):
    whole = list(islice(run_of(uneven, split).repeat(), 12))
    letters = [[key[0] for key in batch.key] for batch in whole]
    assert list(accumulate(letter.count("u") for letter in letters))[-1] > 6 * 12 * 0.6
    legs = ((1, 0, 3), (2, 0, 7), (3, workers, 12))
    state = check_relay(partial(run_of, uneven, split), batch_size=6, legs=legs)
    assert state["steps"] == 24
    with pytest.raises(ResumeError, match=r"parts\.0\.weight\.start: saved 0.9, here 0.8"):
        run_of(uneven, split, weight=Linear(start=0.8, end=0.1)).load_state_dict(state)
    with pytest.raises(ResumeError, match="steps: saved 24, here 25"):
        run_of(uneven, split, steps=25).load_state_dict(state)


def test_a_mixture_by_schedules_may_have_a_token_budget(uneven, split):
    mixed = mix([(source(uneven), Linear(start=1.0, end=0.0)), (source(split), Linear(start=0.0, end=1.0))])
    run = Loader(mixed, batch_size=4, steps=5, token_budget=16, threads=1, device="cpu")
    keys = [key for batch in run for key in batch.key]
    assert Counter(key[0] for key in keys) == {"u": 10, "c": 10}
    assert [key[0] for key in keys].index("c") > 1


def test_wrong_weights_and_epochs_are_refused(uneven, split):
    a, b = source(uneven), source(split)
    assert "sources" not in loader(mix([(a, Linear()), (b, 1)])).stats()
    with pytest.raises(ValueError, match="the run's length: pass steps="):
        next(iter(loader(mix([(a, Linear()), (b, 1)]))))
    for weights, epochs, says in [
        ((1, 1), (1,), "pass one for each of 2 sources"),
        ((1, 1), (1, 2), "all sources end"),
        ((1, 1), (0, None), "a number above 0"),
        ((-0.5, 1), None, "numbers above 0, schedules"),
    ]:
        with pytest.raises(ValueError, match=says):
            mix(list(zip((a, b), weights, strict=True)), epochs=epochs)
    falls = Piecewise(points=((0.0, 1.0), (0.5, 0.0)))
    for weights, epochs, says in [
        ((falls, falls), None, r"at progress 0\.5\d* of the run, .* not all 0"),
        ((Linear(start=-1.0, end=1.0), 1), None, "of at least 0"),
        ((BySize(temperature=Linear(start=1.0, end=-1.0)), 1), None, "a temperature must be above 0"),
        ((falls, 1), (None, 1), "samples left"),
    ]:
        with pytest.raises(ValueError, match=says):
            order_of((5, 5), weights, 2, 40, epochs)
    with pytest.raises(ValueError, match="temperature must be"):
        BySize(temperature=0.0)
    with pytest.raises(ValueError, match="finite"):
        Linear(start=float("nan"))
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got 3"):
        masks.Random(ratio=Linear(start=3.0))


def test_an_order_with_numbers_alone_is_as_it_was():
    parts = tuple(SplitSamples(shard_sizes=(n,), seed=i) for i, n in enumerate((20, 9)))
    plain = MixOrder(samples=MixSamples(parts=parts, weights=(3, 1)), global_batch=8)
    assert plain.identity()["parts"][0]["weight"] == 3
    assert "epochs" not in plain.identity()["parts"][0]
    assert plain.taken(9).tolist() == [7, 2]
