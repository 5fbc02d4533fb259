"""Packed rows: what fits, how counts are scaled, and that any position gives the rows that a whole epoch does."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines.stream.order import GlobalBatch, Weights
from maskstream.pipelines.stream.row_order import DEAR, Room, RowOrder, RowSamples, RowSizes, divided, scaled
from maskstream.pipelines.stream.samples import SplitSamples


class Shapes:
    """Pictures of h x w patches, of which a quarter is visible; a share of them is cropped by half in odd epochs."""

    def __init__(self, n: int, seed: int = 0, most: int = 32) -> None:
        rng = np.random.default_rng(seed)
        self.sides = rng.integers(6, most + 1, (n, 2)).astype(np.int16)

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        sides = self.sides[samples.indexes].astype(np.int64)
        sides[:, 0] = np.where(samples.epochs % 2 > samples.indexes % 2, sides[:, 0] // 2, sides[:, 0])
        shape = np.concatenate([np.ones((len(sides), 1), np.int64), sides], axis=1)
        tokens = shape.prod(axis=1)
        return RowSizes(shape=shape, visible=tokens // 4, target=None, pixels=tokens * 256)


def samples_of(n: int, shards: int = 20, room: Room | None = None, **options: object) -> RowSamples:
    split = SplitSamples(shard_sizes=(n // shards,) * shards, seed=1)
    return RowSamples(split=replace(split, **options), sizer=Shapes(n), room=room or Room(tokens=8192))


def sizes_of(tokens: list[int], visible: list[int], target: list[int] | None = None) -> RowSizes:
    whole, seen = np.array(tokens, np.int64), np.array(visible, np.int64)
    shape = np.stack([np.ones_like(whole), np.ones_like(whole), whole], axis=1)
    return RowSizes(shape=shape, visible=seen, target=None if target is None else np.array(target), pixels=whole)


@st.composite
def cases(draw: st.DrawFn) -> tuple[RowSizes, Room, int | None]:
    """RowSizes, a row that each of them fits into, and a number of rows."""
    pairs = draw(st.lists(st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), min_size=1))
    tokens, visible = ([pair[side] for pair in pairs] for side in (0, 1))
    targets = draw(st.none() | st.just([n // 2 for n in tokens]))
    room = Room(
        tokens=max(visible) + draw(st.integers(0, 80)),
        targets=draw(st.none() | st.integers(max(tokens), 120)),
        scaling=draw(st.sampled_from([0.0, 0.1, 0.3])),
    )
    return sizes_of(tokens, visible, targets), room, draw(st.none() | st.integers(1, 9))


def reference_bounds(n: int, visible: int, scaling: float) -> tuple[int, int]:
    change = floor(Fraction(str(scaling)) * visible)
    return max(visible - change, 1), min(visible + change, n if visible == n else n - 1)


def fits(sizes: RowSizes, room: Room, row: list[int]) -> bool:
    """Whether counts within the bounds exist with which the samples keep to both budgets."""
    ends = [reference_bounds(int(sizes.tokens[i]), int(sizes.visible[i]), room.scaling) for i in row]
    least, most = (sum(end[side] for end in ends) for side in (0, 1))
    if least > room.tokens:
        return False
    if room.targets is None:
        return True
    if sizes.target is not None:
        return sum(int(sizes.target[i]) for i in row) <= room.targets
    return sum(int(sizes.tokens[i]) for i in row) - min(most, room.tokens) <= room.targets


def reference(sizes: RowSizes, room: Room, rows: int | None) -> list[list[int]]:
    """The rows before what is left is placed, sample by sample."""
    visible, found, start = sizes.visible.tolist(), list[list[int]](), 0
    n, whole = len(visible), sum(visible)
    while start < n if rows is None else len(found) < rows:
        aim = sum(visible[:start]) + room.tokens if rows is None else (len(found) + 1) * whole // rows
        distance = [abs(sum(visible[:end]) - aim) for end in range(n + 1)]
        end = max(max(end for end in range(n + 1) if distance[end] == min(distance)), start + 1)
        while end > start and not (end <= n and fits(sizes, room, list(range(start, end)))):
            end -= 1
        found.append(list(range(start, end)))
        start = end
    return found


@given(cases())
@settings(max_examples=40, deadline=None)
def test_rows_are_those_of_a_slow_reference_and_keep_to_both_budgets(case: tuple[RowSizes, Room, int | None]) -> None:
    sizes, room, rows = case
    found, left = divided(sizes, room, rows)
    for own, wanted in zip(found, reference(sizes, room, rows), strict=True):
        assert own[: len(wanted)].tolist() == wanted  # what is left at the end stands behind
    assert sorted([*np.concatenate(found).tolist(), *left.tolist()]) == list(range(len(sizes.visible)))
    assert rows is not None or not len(left)
    for own in found:
        assert fits(sizes, room, own.tolist())
        assert not any(fits(sizes, room, [*own.tolist(), one]) for one in left.tolist())
        part = RowSizes(
            shape=sizes.shape[own],
            visible=sizes.visible[own],
            target=None if sizes.target is None else sizes.target[own],
            pixels=sizes.pixels[own],
        )
        counts = scaled(part, room)
        ends = [
            reference_bounds(n, v, room.scaling)
            for n, v in zip(part.tokens.tolist(), part.visible.tolist(), strict=True)
        ]
        assert all(low <= count <= high for count, (low, high) in zip(counts.tolist(), ends, strict=True))
        wanted_sum = min(room.tokens, sum(high for _, high in ends)) if room.scaling else part.visible.sum()
        assert counts.sum() == wanted_sum
        targets = part.tokens.sum() - counts.sum() if part.target is None else part.target.sum()
        assert room.targets is None or targets <= room.targets


def test_counts_are_scaled_by_one_factor() -> None:
    sizes = sizes_of([400, 40, 1000], [100, 10, 250])
    counts = scaled(sizes, Room(tokens=378))
    assert counts.tolist() == [105, 11, 262]  # 10.5 and 262.5: the token that is left goes to the first
    assert scaled(sizes, Room(tokens=360)).tolist() == [100, 10, 250]
    assert scaled(sizes, Room(tokens=1000)).tolist() == [110, 11, 275]


@pytest.mark.parametrize(("scaling", "empty", "used"), [(0.1, 0.0, 0.98), (0.0, 0.02, 0.98)])
def test_simulated_shapes_fill_their_rows(scaling: float, empty: float, used: float) -> None:
    samples = samples_of(20_000, room=Room(tokens=8192, scaling=scaling))
    rows = [row for batch in samples.order(4).batches(0) for row in batch.packed or ()]
    indexes = np.concatenate([row.indexes for row in rows])
    assert len(np.unique(indexes)) == len(indexes) >= used * 20_000
    assert 1 - sum(int(row.visible.sum()) for row in rows) / (8192 * len(rows)) <= empty
    natural = samples.sizer.sizes(GlobalBatch(indexes=indexes, epochs=np.zeros_like(indexes))).visible
    change = np.abs(np.concatenate([row.visible for row in rows]) / natural - 1)
    assert np.median(change) <= 0.02
    assert change.max() <= scaling


def as_lists(batches: list[GlobalBatch]) -> list[list[list[list[int]]]]:
    return [
        [[one.tolist() for one in (row.indexes, row.epochs, row.shape, row.visible)] for row in batch.packed or ()]
        for batch in batches
    ]


@pytest.mark.parametrize("balance", [1, 8])
@pytest.mark.parametrize("options", [{}, {"lanes": 2}, {"block": 3}, {"shuffle": False}])
def test_any_position_gives_what_the_whole_epoch_does(options: dict[str, object], balance: int) -> None:
    order = replace(samples_of(3000, room=Room(tokens=2048), **options), balance=balance).order(3)
    for epoch in (0, 1):
        whole = as_lists(list(order.batches(epoch)))
        assert len(whole) == order.n_batches
        for first in {1, 8, 9, order.n_batches // 2, order.n_batches - 1}:
            assert as_lists(list(islice(order.batches(epoch, first), 2))) == whole[first : first + 2]


def test_rows_are_the_same_at_any_size_of_a_batch() -> None:
    samples = samples_of(3000, room=Room(tokens=2048))
    by_number = [
        {
            int(n): row.indexes.tolist()
            for epoch in range(3)
            for batch in samples.order(size).batches(epoch)
            for n, row in zip(batch.indexes, batch.packed or (), strict=True)
        }
        for size in (1, 4, 6)
    ]
    assert min(map(len, by_number)) > 60
    for other in by_number[1:]:
        assert other == {n: by_number[0][n] for n in other}


@pytest.mark.parametrize("options", [{}, {"lanes": 2}])
def test_rows_that_fill_no_batch_begin_the_next_epoch_and_none_is_left_out(options: dict[str, object]) -> None:
    order = samples_of(3000, room=Room(tokens=2048), **options).order(16)
    shown = Counter[tuple[int, int]]()
    for epoch in range(6):
        for batch in order.batches(epoch):
            for row in batch.packed or ():
                shown.update(zip(row.indexes.tolist(), row.epochs.tolist(), strict=True))
    assert max(shown.values()) == 1
    ended = max(epoch for _, epoch in shown)  # of the samples, whose epochs are longer than those of batches
    assert ended == 5
    for epoch in range(ended):
        assert sum(of == epoch for _, of in shown) >= 0.99 * 3000


def test_parts_of_a_batch_cost_about_as_much_to_decode() -> None:
    shares = []
    for batch in samples_of(20_000).order(16).batches(0):
        cost = np.array([row.shape.prod(axis=1).sum() for row in batch.packed or ()])
        shares += [ranks.max() / ranks.mean() for ranks in (cost.reshape(k, -1).sum(axis=1) for k in (2, 4, 8))]
    assert max(shares) < 1.1


class Uneven(Shapes):
    """The same, of which one in 50 costs 40 times as much to decode."""

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        sizes = super().sizes(samples)
        return replace(sizes, pixels=sizes.pixels * np.where(samples.indexes % 50 == 0, 40, 1))


def numbered(order: RowOrder, epoch: int) -> list[list[tuple[int, int]]]:
    """The number of each row and what it costs, batch by batch."""
    return [
        [(int(n), row.pixels) for n, row in zip(batch.indexes, batch.packed or (), strict=True)]
        for batch in order.batches(epoch)
    ]


def test_dear_rows_of_a_window_share_batches() -> None:
    plain = replace(samples_of(10_000, room=Room(tokens=1024)), sizer=Uneven(10_000))
    worst, late = {}, []
    for balance in (1, 8):
        order = replace(plain, balance=balance).order(16)
        epochs = [numbered(order, epoch) for epoch in range(2)]
        costs = np.array([[cost for _, cost in batch] for epoch in epochs for batch in epoch])
        ranks = costs.reshape(len(costs), 4, 4).sum(axis=2)
        worst[balance] = np.sort(ranks.max(axis=1) / ranks.mean(axis=1))
        if balance == 1:
            in_order = epochs
            continue
        assert order.identity() == {**replace(plain, balance=1).order(16).identity(), "balance": 8}
        for mine, theirs in zip(epochs, in_order, strict=True):
            n = len(mine)
            length = -(-n // -(-n // balance))
            for first in range(0, n, length):
                window = [mine[first : first + length], theirs[first : first + length]]
                flat = [[row for batch in some for row in batch] for some in window]
                assert sorted(flat[0]) == sorted(flat[1])  # a window has the same rows
                of = [sum(cost for _, cost in batch) for batch in window[0]]
                late.append(int(np.argmax(of)) / length)
    assert np.quantile(worst[1], 0.9) > 1.3
    assert np.quantile(worst[8], 0.9) < 1.1
    assert min(late) < 0.2 < 0.6 < max(late)  # the dearest batch has no place of its own


def test_rows_that_cost_about_as_much_stay_in_their_batches() -> None:
    plain = samples_of(20_000)  # rows of many samples
    costs = [row.pixels for batch in plain.order(16).batches(0) for row in batch.packed or ()]
    assert max(costs) < DEAR * min(costs)
    of = [
        {frozenset(n for n, _ in batch) for batch in numbered(replace(plain, balance=balance).order(16), 0)}
        for balance in (1, 8)
    ]
    assert of[0] == of[1]


def test_weights_say_how_often_samples_come() -> None:
    weights = np.ones(2000)
    weights[:1000] = 3
    order = samples_of(2000, room=Room(tokens=2048), weights=Weights(weights)).order(2)
    indexes = np.concatenate([row.indexes for batch in order.batches(0) for row in batch.packed or ()])
    assert 2.5 < np.mean(indexes < 1000) / np.mean(indexes >= 1000) < 3.5


def test_validation_has_every_sample_once_unscaled_and_the_same_in_every_epoch() -> None:
    samples = samples_of(500, room=Room(tokens=2048), shuffle=False)
    first, second = (list(samples.order(3).batches(epoch)) for epoch in (0, 1))
    assert as_lists(first) == as_lists(second)
    rows = [row for batch in first for row in batch.packed or ()]
    assert sorted(np.concatenate([row.indexes for row in rows]).tolist()) == list(range(500))
    assert all((row.visible == row.shape.prod(axis=1) // 4).all() for row in rows)


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (Room(tokens=100), "row_tokens=100 is less than one sample needs: of 1 x .* raise row_tokens"),
        (Room(tokens=8192, targets=100), "row_targets=100 is less than one sample needs: .* raise row_targets"),
        (Room(tokens=1 << 20), "row_tokens=1048576: 500 samples do not fill one row"),
    ],
)
def test_a_room_that_is_too_small_or_too_large_is_refused_with_its_setting(room: Room, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samples_of(500, room=room).order(2)


def test_other_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"500 samples fill .* rows of 8192 .* lower rows or row_tokens"):
        samples_of(500).order(400)
    with pytest.raises(ValueError, match="packed rows are already batches"):
        samples_of(500).stream()


@pytest.mark.slow
def test_any_position_of_ten_million_samples_takes_little_memory() -> None:
    samples = replace(samples_of(10_000_000, shards=1000), balance=8)
    tracemalloc.start()
    order = RowOrder(samples=samples, global_batch=16)
    batch = next(order.batches(3, order.n_batches - 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(batch.packed or ()) == 16
    assert peak < 50e6
