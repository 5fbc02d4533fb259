"""What every mask keeps, for each line of two tables: exact counts, disjoint parts, one key one mask."""

import pickle
import random as stdlib_random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines import masks
from maskstream.pipelines.masks import (
    MASKS,
    Linear,
    MaskBatch,
    MaskGIT,
    MultiRatio,
    Padded,
    Piecewise,
    RatioDecay,
    RatioSchedule,
    SquaredCosine,
    SquareRoot,
    TokenGrid,
    TruncatedNormal,
    Uniform,
    UniformCount,
)

from .mask_table import SCHEMES, Scheme, draws_of
from .pattern_table import PATTERNS, Pattern, count_of

KEYS = ["dog", "cat", "eel", "owl", "bee"]

SCHEDULES: list[RatioSchedule] = [
    Uniform(low=0.0, high=1.0, scope="batch"),
    Uniform(low=0.25, high=0.25, scope="sample"),
    UniformCount(scope="batch"),
    UniformCount(low=2, high=5, scope="sample"),
    TruncatedNormal(scope="batch"),
    *(MaskGIT(curve=c, scope="batch") for c in ("cosine", "uniform", "power", "log", "exp")),
    MultiRatio(),
    Linear(start=0.2, end=0.9),
    *(RatioDecay(shape=s) for s in ("cosine", "square_below", "triangle", "warmup_decay")),
    SquaredCosine(),
    Piecewise(),
    SquareRoot(),
]
"""Schedules whose number a test can draw again, because it does not come from the view's own generator."""

schemes = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
patterns = pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)


def check_parts(batch: MaskBatch, grid: TokenGrid, samples: int, dual: bool = False) -> None:
    """Visible and masked tokens are all tokens, none twice; targets are the masked ones, unless `dual`."""
    assert (batch.masked.shape, batch.masked.dtype) == ((samples, grid.size), torch.bool)
    assert (batch.visible.dtype, batch.target.dtype, batch.weight.dtype) == (torch.int64, torch.int64, torch.float32)
    for i in range(samples):
        visible = batch.visible[i][batch.visible_valid[i]].tolist()
        target = batch.target[i][batch.target_valid[i]].tolist()
        hidden = torch.nonzero(batch.masked[i])[:, 0].tolist()
        assert sorted(visible + hidden) == list(range(grid.size))
        assert visible == sorted(visible)
        assert target == sorted(set(target))
        if not dual:
            assert target == hidden
        unseen = set(hidden)
        if batch.mask_token is not None:
            as_token = set(torch.nonzero(batch.mask_token[i])[:, 0].tolist())
            assert as_token <= set(visible)
            unseen |= as_token
        weight = batch.weight[i][batch.target_valid[i]].tolist()
        assert weight == [float(j in unseen) for j in target]


def test_every_name_has_a_line() -> None:
    assert sorted(MASKS) == sorted(s.name for s in SCHEMES)


@schemes
def test_schemes_have_their_papers_counts_and_touch_no_global_generator(scheme: Scheme) -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), stdlib_random.getstate()
    mask = MASKS[scheme.name]()
    batch = mask.draw(scheme.grid, draws_of(scheme.grid, KEYS, scheme.cues, view=scheme.view))
    check_parts(batch, scheme.grid, len(KEYS), dual=scheme.target is not None)
    if scheme.visible is not None:
        assert batch.visible.shape == (len(KEYS), scheme.visible)
    if scheme.target is not None and scheme.target >= 0:
        assert batch.target.shape == (len(KEYS), scheme.target)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    assert stdlib_random.getstate() == before[2]


@schemes
def test_one_key_has_one_mask_in_every_batch(scheme: Scheme) -> None:
    mask, grid = MASKS[scheme.name](), scheme.grid

    def maps(keys: list[str], **where: int) -> torch.Tensor:
        settings = {"view": scheme.view, **where}
        batch = mask.draw(grid, draws_of(grid, keys, scheme.cues, **settings))
        unseen = torch.zeros_like(batch.masked)
        for i, row in enumerate(batch.target):
            unseen[i, row[batch.target_valid[i]]] = True
        return torch.stack([batch.masked, unseen], dim=1)

    together = maps(KEYS)
    assert torch.equal(maps(["owl", "dog"]), together[[3, 0]])
    assert all(torch.equal(maps([key])[0], together[i]) for i, key in enumerate(KEYS))
    for other, alike in (
        (maps(KEYS, epoch=1), scheme.fixed),
        (maps(KEYS, seed=1), scheme.fixed),
        (together.roll(1, 0), False),
    ):
        same = (other == together).flatten(1).all(1)
        if alike:
            assert same.all()
        elif scheme.few:
            assert not same.all()
        else:
            assert not (same & together.flatten(1).any(1)).any()  # what hides nothing is always the same
    another_view = maps(KEYS, view=scheme.view + 1)
    assert torch.equal(another_view, together) == scheme.alike


@schemes
def test_schemes_pickle_and_their_repr_rebuilds_them(scheme: Scheme) -> None:
    mask = MASKS[scheme.name]()
    assert pickle.loads(pickle.dumps(mask)) == mask
    assert eval(repr(mask), {name: getattr(masks, name) for name in masks.__all__}) == mask


@patterns
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_counts_are_exact_at_any_ratio_on_any_grid(pattern: Pattern, data: st.DataObject) -> None:
    grid = data.draw(pattern.grids)
    n = grid.size
    ratio = data.draw(st.one_of(st.sampled_from([0.0, 1 - 1 / n, 1.0]), st.integers(0, 1000).map(lambda k: k / 1000)))
    rounding = data.draw(st.sampled_from(pattern.roundings))
    draws = draws_of(grid, KEYS[:2], pattern.cues, seed=data.draw(st.integers(0, 9)))
    batch = pattern.build(ratio, rounding).draw(grid, draws)
    check_parts(batch, grid, 2, dual=pattern.dual)
    assert batch.visible.shape[1] == pattern.visible(grid, count_of(ratio, rounding))


@patterns
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_counts_are_those_of_any_schedule(pattern: Pattern, schedule: RatioSchedule) -> None:
    grid, rounding = pattern.example, pattern.roundings[0]
    if isinstance(schedule, UniformCount) and not pattern.counts:
        with pytest.raises(ValueError, match=r"draws a number of tokens, but|or a ProportionSchedule"):
            pattern.build(schedule, rounding)
        return
    mask, draws = Padded(mask=pattern.build(schedule, rounding)), draws_of(grid, KEYS, pattern.cues)
    batch = mask.draw(grid, draws)
    check_parts(batch, grid, len(KEYS), dual=pattern.dual)
    counts = [pattern.visible(grid, lambda n, d=d: schedule.visible(n, d, rounding)) for d in draws]
    assert batch.n_visible.tolist() == counts
    assert mask.needs_progress == schedule.needs_progress


@patterns
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, Uniform(), MaskGIT()], ids=repr)
def test_the_smallest_grid(pattern: Pattern, ratio: float | RatioSchedule) -> None:
    for rounding in pattern.roundings:
        mask = Padded(mask=pattern.build(ratio, rounding))
        batch = mask.draw(pattern.smallest, draws_of(pattern.smallest, KEYS, pattern.cues))
        check_parts(batch, pattern.smallest, len(KEYS), dual=pattern.dual)


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.uniform], ids=lambda p: p.name)
@pytest.mark.parametrize("ratio", [0.3, 0.75])
def test_every_place_is_equally_likely(pattern: Pattern, ratio: float) -> None:
    """Each place's number of hits is binomial, and one visible token of each draw is a fair die."""
    grid, draws = pattern.example, 2000
    mask = pattern.build(ratio, "floor_visible")
    keys = [str(i) for i in range(draws)]
    visible = (~mask.draw(grid, draws_of(grid, keys, pattern.cues)).masked).numpy()
    share = visible[0].sum() / grid.size
    z = (visible.sum(0) - draws * share) / np.sqrt(draws * share * (1 - share))
    assert np.abs(z).max() < 4.5
    picked = (np.random.default_rng(0).random(visible.shape) * visible).argmax(1)
    faces = np.bincount(picked, minlength=grid.size)
    chi_square = ((faces - draws / grid.size) ** 2).sum() / (draws / grid.size)
    freedom = grid.size - 1
    assert abs(chi_square - freedom) / np.sqrt(2 * freedom) < 4.5
