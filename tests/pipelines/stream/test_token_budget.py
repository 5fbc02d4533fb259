"""Token budgets: batches grow as the ratio does, hold the budget, and go through the samples as the order says."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskstream.pipelines import Loader, VideoBatch, VideoClip, video_loader
from maskstream.pipelines.masks import Draw, MotionGuided, Padded, ProportionSchedule, Random, TokenGrid, Uniform
from maskstream.pipelines.masks.core.visible import VisibleTokens
from maskstream.pipelines.stream.order import Order
from maskstream.pipelines.stream.rng import Place
from maskstream.pipelines.stream.run_length import BudgetOrder, count_epoch_steps, fit_budget, run_steps
from maskstream.pipelines.stream.sampler import Visible
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import ResumeError

from ..contract import check_order
from ..sources import source_of

GRID = TokenGrid(axes=("time", "freq"), shape=(64, 8), patch=(16, 16))
STEPS = 3000


@dataclass(frozen=True, kw_only=True, slots=True)
class Falling(ProportionSchedule):
    """From `start` to `end` over the run."""

    start: float = 0.9
    end: float = 0.8

    @property
    def needs_progress(self) -> bool:
        return True

    def draw(self, draw: Draw) -> float:
        return round(self.start + (self.end - self.start) * draw.place.progress, 6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What the length of a run depends on."""

    samples: SplitSamples
    visible: Visible


def falling_order(budget: int = 4000, steps: int = STEPS) -> BudgetOrder:
    order = Order(shard_sizes=(50, 30, 21), global_batch=1, seed=5)
    visible = VisibleTokens(parts=((Random(ratio=Falling()), GRID),))
    return BudgetOrder(samples=order, budget=budget, global_batch=4, visible=visible(steps))


def test_the_visible_tokens_of_a_batch_stay_within_one_step_of_the_budget() -> None:
    order = falling_order()
    tokens = order.sizes() * order.visible
    assert (order.visible[0], order.visible[-1]) == (51, 102)
    assert tokens.max() <= 4000
    assert (4000 - tokens < 4 * order.visible).all()
    assert (order.sizes() % 4 == 0).all()
    assert (order.sizes()[0], order.sizes()[-1]) == (76, 36)


def test_the_counts_are_those_of_every_single_step() -> None:
    mask = Random(ratio=Falling())
    places = [Place(step=s, progress=s / (STEPS - 1)) for s in range(STEPS)]
    rng = np.random.default_rng(0)
    every = [GRID.size - int(mask.hide(GRID, Draw(rng=rng, place=place)).sum()) for place in places]
    assert VisibleTokens(parts=((mask, GRID),))(STEPS).tolist() == every


def test_batches_are_the_orders_samples_without_a_gap() -> None:
    order = falling_order(steps=40)
    batches = list(order.batches(0))
    assert [len(b.indexes) for b in batches] == order.sizes().tolist()
    indexes = np.concatenate([b.indexes for b in batches])
    epochs = np.concatenate([b.epochs for b in batches])
    wanted = np.concatenate([order.samples.epoch(e) for e in range(int(epochs[-1]) + 1)])
    assert np.array_equal(indexes, wanted[: len(indexes)])
    assert np.array_equal(epochs, np.arange(len(indexes)) // 101)


@pytest.mark.parametrize("first", [0, 1, 17, 39])
def test_a_run_goes_on_at_any_batch_and_beyond_its_end(first: int) -> None:
    order = falling_order(steps=40)
    whole = list(order.batches(0)) + list(order.batches(1))
    rest = list(order.batches(0, first)) + list(order.batches(1))
    assert [b.indexes.tolist() for b in rest] == [b.indexes.tolist() for b in whole[first:]]
    assert {len(b.indexes) for b in whole[40:]} == {int(order.sizes()[-1])}
    assert order.position(0, first)["sample_epoch"] == whole[first].epochs[0]


def test_what_cannot_be_held_to_a_budget_is_refused(split: Path) -> None:
    clip = VideoClip(frames=4, stride=4, size=32)

    def refused(says: str, *, steps: int | None = 10, budget: int = 3000, **settings: Any) -> None:
        source = source_of(split, clip=clip, patch=8, **settings)
        with pytest.raises(ValueError, match=says):
            Loader(source, batch_size=4, steps=steps, token_budget=budget, device="cpu")

    falling = Random(ratio=Falling(start=0.9, end=0.5))
    refused(r"budget of 60 is too small for the smallest batch: 4 samples .* up to 16", mask=falling, budget=60)
    refused("pass steps=", mask=falling, steps=None)
    refused("pass mask=", mask=None)
    refused("needs flow", mask=MotionGuided())
    refused("hides all 32", mask=Random(ratio=1.0))
    refused("but .* draws a random one", mask=Padded(mask=Random(ratio=Uniform(low=0.2, high=0.9))))
    refused("shuffle=True", mask=falling, shuffle=False)


def test_a_run_has_the_fewest_steps_that_show_all_samples_so_often(split: Path) -> None:
    clip, mask = VideoClip(frames=4, stride=4, size=32), Random(ratio=Falling(start=0.9, end=0.5))
    source = source_of(split, clip=clip, patch=8, mask=mask)
    assert run_steps(source, epochs=3, global_batch=4) == 3 * 2 == 3 * count_epoch_steps(source, 4)
    assert source.visible is not None
    for epochs in (1, 3, 10):
        steps = run_steps(source, epochs=epochs, global_batch=4, token_budget=64)
        shown = [int(fit_budget(source.visible(n), 64, 4).sum()) for n in (steps - 1, steps)]
        assert shown[0] < 11 * epochs <= shown[1]
    with pytest.raises(ValueError, match="pass mask="):
        run_steps(replace(source, visible=None), epochs=1, global_batch=4, token_budget=64)
    with pytest.raises(ValueError, match="budget of 63 is too small for the smallest batch: 4 samples"):
        run_steps(source, epochs=1, global_batch=4, token_budget=63)


@pytest.mark.parametrize("n_samples", [1, 11, 5000, 300_000])
def test_the_length_of_a_run_is_found_in_a_few_trials(n_samples: int) -> None:
    visible, trials = VisibleTokens(parts=((Random(ratio=Falling()), GRID),)), []

    def counted(steps: int) -> Int64s:
        trials.append(steps)
        return visible(steps)

    source = Counts(samples=SplitSamples(shard_sizes=(n_samples,)), visible=counted)
    steps = run_steps(source, epochs=2, global_batch=4, token_budget=4000)
    assert len(trials) <= 8
    shown = [int(fit_budget(visible(n), 4000, 4).sum()) for n in (steps - 1, steps) if n]
    assert shown[-1] >= 2 * n_samples
    assert all(few < 2 * n_samples for few in shown[:-1])


def budget_loader(split: Path, **options: Any) -> Loader[VideoBatch]:
    settings = {"mask": Random(ratio=Falling(start=0.9, end=0.5)), "patch": 8, "seed": 3, "threads": 2, "steps": 6}
    return video_loader(split, clip=VideoClip(frames=4, stride=4, size=32), token_budget=64, **settings | options)


def test_a_loader_keeps_the_budget_on_any_ranks_and_after_a_resume(split: Path) -> None:
    sizes = [len(batch) for batch in budget_loader(split, batch_size=4)]
    assert len(sizes) == 6
    assert sizes[0] > sizes[-1] >= 4
    state = check_order(partial(budget_loader, split), batch_size=4, steps=6)
    with pytest.raises(ResumeError, match="steps: saved 6, here 7"):
        budget_loader(split, batch_size=4, steps=7).load_state_dict(state)
