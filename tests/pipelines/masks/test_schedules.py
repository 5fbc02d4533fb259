"""Schedules of the ratio: what they draw, for whom one number counts, and the schedules of the papers."""

import pickle
from collections import Counter
from dataclasses import fields
from math import cos, log2, pi, sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.pipelines import masks
from maskstream.pipelines.masks import (
    Cues,
    Draw,
    Linear,
    MaskGIT,
    MultiRatio,
    Piecewise,
    Random,
    RatioDecay,
    RatioSchedule,
    SquaredCosine,
    SquareRoot,
    Stratified,
    TokenGrid,
    TruncatedNormal,
    Uniform,
    UniformCount,
)
from maskstream.pipelines.stream.rng import Place

RANDOM = [Uniform(), TruncatedNormal(), MaskGIT()]


def draw_of(key: str = "dog", view: int = 0, step: int = 0, epoch: int = 0, progress: float = 0.0) -> Draw:
    return Draw.of(3, epoch, key, view, Place(step=step, progress=progress), Cues())


def numbers(schedule: RatioSchedule, count: int = 4000) -> np.ndarray:
    return np.array([schedule.draw(draw_of(str(i))) for i in range(count)])


def scoped(schedule: RatioSchedule, scope: str, name: str = "ratio") -> RatioSchedule:
    settings = {f.name: getattr(schedule, f.name) for f in fields(schedule)}
    return type(schedule)(**{**settings, "scope": scope, "name": name})


def deviation(sample: np.ndarray, distribution: object) -> float:
    """Kolmogorov's statistic times sqrt(n): above 1.95 in one of a thousand samples of the distribution."""
    expected = np.array([distribution(x) for x in np.sort(sample)])
    steps = np.arange(len(sample) + 1) / len(sample)
    return max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max()) * sqrt(len(sample))


@pytest.mark.parametrize("schedule", RANDOM, ids=repr)
def test_scopes(schedule: RatioSchedule) -> None:
    here = draw_of()
    view, sample, batch = (scoped(schedule, s) for s in ("view", "sample", "batch"))
    assert view.draw(draw_of()) != view.draw(draw_of(view=1))
    assert sample.draw(here) == sample.draw(draw_of(view=1)) == sample.draw(draw_of(step=9))
    assert len({sample.draw(d) for d in (here, draw_of("cat"), draw_of(epoch=1))}) == 3
    assert batch.draw(here) == batch.draw(draw_of("cat", view=1, epoch=1)) != batch.draw(draw_of(step=1))
    assert scoped(schedule, "batch", "audio").draw(here) != scoped(schedule, "batch", "video").draw(here)
    for schedule_of_all in (view, sample, batch):
        assert len(set(schedule_of_all.per_frame(draw_of(), 5))) == 1
    per_frame = scoped(schedule, "frame").per_frame(draw_of(), 5)
    assert len(set(per_frame)) == 5
    assert per_frame == scoped(schedule, "frame").per_frame(draw_of(), 5)
    with pytest.raises(ValueError, match="draws a ratio for each frame, but the pattern counts"):
        scoped(schedule, "frame").draw(here)
    with pytest.raises(ValueError, match="a random number shared by a batch needs the sample's key"):
        batch.draw(Draw(rng=np.random.default_rng(0)))


def test_uniform() -> None:
    sample = numbers(Uniform(low=0.2, high=0.6))
    assert deviation(sample, lambda x: (x - 0.2) / 0.4) < 1.95
    assert numbers(Uniform(low=0.3, high=0.3), 5).tolist() == [0.3] * 5


@pytest.mark.parametrize(("mean", "std", "low", "high"), [(0.55, 0.25, 0.5, 1), (0.0, 0.2, 0.3, 0.9), (0.5, 9, 0, 1)])
def test_truncated_normal(mean: float, std: float, low: float, high: float) -> None:
    sample = numbers(TruncatedNormal(mean=mean, std=std, low=low, high=high))
    assert low <= sample.min() <= sample.max() <= high
    kept = np.random.default_rng(0).normal(mean, std, 400_000)
    kept = np.sort(kept[(kept >= low) & (kept <= high)])
    assert deviation(sample, lambda x: np.searchsorted(kept, x) / len(kept)) < 1.95


def test_mages_mean_ratio() -> None:
    """The mean of a truncated normal, by its formula."""
    unit, (a, b) = NormalDist(), ((0.5 - 0.55) / 0.25, (1 - 0.55) / 0.25)
    mean = 0.55 + 0.25 * (unit.pdf(a) - unit.pdf(b)) / (unit.cdf(b) - unit.cdf(a))
    assert abs(numbers(TruncatedNormal()).mean() - mean) < 0.01


@given(st.floats(0, 1), st.integers(2, 4096), st.floats(0.25, 4))
def test_maskgit_curves(r: float, tokens: int, power: float) -> None:
    published = {
        "cosine": cos(pi / 2 * r),
        "uniform": 1 - r,
        "power": 1 - r**power,
        "log": -log2(max(r, 1e-300)) / log2(tokens),
        "exp": 1 - tokens ** (r - 1),
    }
    for curve, ratio in published.items():
        schedule = MaskGIT(curve=curve, tokens=tokens, power=power)
        assert schedule.at(r) == pytest.approx(min(max(ratio, 1e-6), 1.0), abs=1e-9)


def test_maskgit_draws_the_curve_of_a_uniform_number() -> None:
    sample = numbers(MaskGIT())
    assert deviation(sample, lambda x: 1 - np.arccos(x) * 2 / pi) < 1.95
    assert MaskGIT(curve="log").at(0.0) == 1.0
    assert MaskGIT(curve="exp").at(1.0) == 1e-6


@pytest.mark.parametrize(
    ("schedule", "n", "counts"),
    [
        (UniformCount(), 6, range(1, 7)),
        (UniformCount(low=0, high=4), 9, range(5)),
        (UniformCount(low=2, high=40), 5, range(2, 6)),
        (UniformCount(share=0.5), 9, range(1, 5)),
        (UniformCount(share=0.1), 3, range(1, 2)),
        (UniformCount(low=3), 1, range(1, 2)),
        (UniformCount(low=75, high=75), 196, range(75, 76)),
        (UniformCount(), 0, range(1)),
    ],
    ids=repr,
)
def test_uniform_counts(schedule: UniformCount, n: int, counts: range) -> None:
    hits = Counter(schedule.count(n, draw_of(str(i)), "floor_visible") for i in range(1200))
    assert sorted(hits) == list(counts)
    expected = 1200 / len(counts)
    freedom = max(len(counts) - 1, 1)
    chi_square = sum((hits[c] - expected) ** 2 / expected for c in counts)
    assert chi_square < freedom + 4.5 * sqrt(2 * freedom)


def test_counts_frame_by_frame() -> None:
    here = draw_of()
    assert len(set(UniformCount(scope="frame").visible_per_frame(8, 100, here, "floor_visible"))) > 4
    assert len(set(UniformCount(scope="batch").visible_per_frame(8, 100, here, "floor_visible"))) == 1
    with pytest.raises(ValueError, match="draws a ratio for each frame"):
        UniformCount(scope="frame").visible(9, here, "floor_visible")


def of_a_batch(schedule: MultiRatio, rows: int, step: int = 0) -> list[float]:
    """The ratios of the samples of a batch of `rows`, whose keys play no part."""
    return [schedule.draw(Draw.of(0, r, f"k{r}", r, Place(step=step, row=r, rows=rows), Cues())) for r in range(rows)]


@given(st.integers(1, 70), st.integers(1, 7), st.integers(0, 50))
def test_a_batch_has_each_ratio_equally_often(rows: int, parts: int, step: int) -> None:
    ratios = tuple(i / 10 for i in range(parts))
    counts = Counter(of_a_batch(MultiRatio(ratios=ratios), rows, step))
    assert sum(counts.values()) == rows
    assert {counts[r] for r in ratios} <= {rows // parts, -(-rows // parts)}


def test_every_ratio_occurs_at_batches_smaller_than_their_number() -> None:
    """A batch of 4 never had the ratio 0.8 in the published code."""
    hits = Counter(ratio for step in range(1000) for ratio in of_a_batch(MultiRatio(), 4, step))
    assert sorted(hits) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert all(abs(hits[r] - 800) < 4.5 * sqrt(1000 * 0.8 * 0.2) for r in hits)


def test_two_modalities_have_orders_of_their_own() -> None:
    pairs: Counter[tuple[float, float]] = Counter()
    for step in range(200):
        audio, video = (of_a_batch(MultiRatio(name=name), 20, step) for name in ("audio", "video"))
        pairs.update(zip(audio, video, strict=True))
    assert len(pairs) == 25
    assert max(abs(n - 160) for n in pairs.values()) < 4.5 * sqrt(160)


P = 0.15
SCHEDULES = {
    "cosine": (0.32, 0.17, 0.02),
    "descending": (0.3, 0.15, 0.0),
    "ascending": (0.0, 0.15, 0.3),
    "square_above": (0.31, 2 * P * 0.75 + 0.01, 0.01),
    "square_below": (0.3, 2 * P * 0.25, 0.0),
    "triangle": (0.0, 0.3, 0.0),
    "v": (0.31, 0.01, 0.31),
    "warmup_decay": (0.0, 0.3 * 0.5 / 0.6, 0.0),
}


@pytest.mark.parametrize("shape", SCHEDULES)
def test_ratio_decay_at_the_start_half_way_and_at_the_end(shape: str) -> None:
    schedule = RatioDecay(shape=shape)
    assert [schedule.draw(draw_of(progress=s)) for s in (0.0, 0.5, 1.0)] == pytest.approx(list(SCHEDULES[shape]))
    assert schedule.needs_progress
    top = max(schedule.at(s / 1000) for s in range(1001))
    assert top == pytest.approx(max(*SCHEDULES[shape], 0.3 if shape == "warmup_decay" else 0))


def test_lmds_ramps() -> None:
    ramp, lines = SquaredCosine(), Piecewise()
    assert [ramp.draw(draw_of(progress=s)) for s in (0.0, 2 / 3, 0.8, 1.0)] == [0.15, 0.75, 0.75, 0.75]
    x = (0.25 / (2 / 3) + 0.008) / 1.008
    assert ramp.at(0.25) == pytest.approx(0.15 + 0.6 * (1 - cos(x * pi / 2) ** 2 / cos(0.008 / 1.008 * pi / 2) ** 2))
    places = [0.0, 1 / 12, 1 / 6, 0.25, 1 / 3, 0.5, 2 / 3, 1.0]
    assert [lines.at(s) for s in places] == pytest.approx([0.15, 0.275, 0.4, 0.4, 0.4, 0.575, 0.75, 0.75])


def test_a_jepas_curve() -> None:
    assert [SquareRoot().at(s) for s in (0.0, 0.25, 1.0)] == pytest.approx([1e-4, 0.5 * 0.9999**0.5 + 1e-4, 1.0])
    assert SquareRoot(start=0.5).at(0.5) == pytest.approx(0.375**0.5 + 0.25)


def test_linear_ends_are_exact() -> None:
    schedule = Linear(start=0.9, end=0.8)
    assert [schedule.draw(draw_of(progress=s)) for s in (0.0, 0.5, 1.0)] == [0.9, 0.85, 0.8]
    assert schedule.visible(100, draw_of(progress=0.5), "floor_visible") == 15
    assert not Uniform().needs_progress


ALL = [*RANDOM, UniformCount(), MultiRatio(), Linear(), RatioDecay(), SquaredCosine(), Piecewise(), SquareRoot()]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_schedules_pickle_and_their_repr_rebuilds_them(schedule: RatioSchedule) -> None:
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert eval(repr(schedule), {name: getattr(masks, name) for name in masks.__all__}) == schedule


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: masks.ByEnergy(ratio=1.5), "ratio"),
        (lambda: masks.RunningCell(ratio=0.9), "0.25, 0.5 or 0.75, got 0.9"),
        (lambda: masks.Limbs(limbs=(), joints=0), "at least one limb or random joint"),
        (lambda: masks.Replace(mask=masks.Tokens(), vocabulary=9, keep=0.6, random=0.6), "sum to at most 1"),
        (lambda: masks.Replace(mask=masks.Tokens(), mask_id=0, vocabulary=0), "got vocabulary=0"),
        (lambda: Uniform(low=0.6, high=0.5), "0 <= low <= high <= 1, got low=0.6, high=0.5"),
        (lambda: UniformCount(low=3, high=2), "0 <= low <= high, got low=3, high=2"),
        (lambda: TruncatedNormal(low=-0.1), "got low=-0.1"),
        (lambda: TruncatedNormal(mean=0.0, std=0.01), "less than a millionth"),
        (lambda: masks.Random(ratio=Linear(start=1.2)), r"the ratio at the start must be in \[0, 1\], got 1.2"),
        (lambda: Piecewise(points=((0.5, 0.1), (0.4, 0.2))), "pairs with increasing progress"),
        (lambda: masks.Tube(ratio=Piecewise(points=((0.0, 1.1),))), "got 1.1"),
        (lambda: masks.Curriculum(share=Linear(end=1.5)), r"the ratio at the end must be in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_settings_of_masks_and_schedules_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("pattern", [masks.Tokens, masks.WholeWords])
def test_a_pattern_that_needs_a_ratio_refuses_a_count_when_it_is_made(pattern: type) -> None:
    assert pattern(ratio=Uniform(), each=True) is not None
    with pytest.raises(ValueError, match=r"draws a number of tokens, but .* needs a ratio"):
        pattern(ratio=UniformCount(), each=True)


@pytest.mark.parametrize(
    ("schedule", "visible"),
    [
        (Uniform(scope="view"), [602, 350]),
        (Uniform(scope="sample"), [470, 699]),
        (Uniform(scope="batch", name="audio"), [474, 474]),
        (UniformCount(low=10, scope="sample"), [730, 634]),
        (TruncatedNormal(scope="batch"), [158, 158]),
        (MaskGIT(scope="sample"), [299, 22]),
        (Stratified(), [467, 43]),
    ],
    ids=repr,
)
def test_drawn_ratios_never_change(schedule: RatioSchedule, visible: list[int]) -> None:
    """Recorded at release 0.2: counts of visible tokens of two samples, whose seeds include the name and the scope."""
    drawn = [Random(ratio=schedule).of_keys(TokenGrid(), [key], seed=5, epoch=2).visible.shape[1] for key in ("a", "b")]
    assert drawn == visible
