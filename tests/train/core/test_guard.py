"""Collapse: measures of the spread of features, and what a run does that falls below the line."""

import json
import logging
from contextlib import suppress
from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch

from maskstream.pipelines.masks import Linear
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source as Raw
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member
from maskstream.train import Trainer, read_metrics
from maskstream.train.core.collapse import lidar, measure_spread
from maskstream.train.core.guard import LEAST, MOST_ROLLBACKS, CollapseError, Guard, find_line
from maskstream.train.evaluate.online import KNN, LINEAR, OnlineProbe
from maskstream.train.papers.jepa.model import Jepa
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ...pipelines.small_media import SAMPLES
from ..test_every_recipe import CUTS

CPU = torch.device("cpu")


def normal(n, d, rank=None):
    rng = torch.Generator().manual_seed(0)
    if rank is None:
        return torch.randn(n, d, generator=rng, dtype=torch.float64)
    return torch.randn(n, rank, generator=rng, dtype=torch.float64) @ torch.randn(rank, d, generator=rng).double()


def test_the_measures_are_those_of_their_definitions():
    x = normal(40, 7) + 2.0
    found = measure_spread(x)
    s = torch.linalg.svdvals(x)
    p = s / s.sum()
    assert found["rank me"] == pytest.approx(float(torch.exp(-(p * p.log()).sum())))
    values = torch.linalg.eigvalsh(torch.cov(x.T))
    q = values / values.sum()
    assert found["effective rank"] == pytest.approx(float(torch.exp(-(q * q.log()).sum())))
    assert found["variance"] == pytest.approx(float(x.var(dim=0, unbiased=False).sum() / x.square().mean(dim=0).sum()))
    correlation = torch.corrcoef(x.T)
    off = correlation[~torch.eye(7, dtype=torch.bool)]
    assert found["covariance"] == pytest.approx(float(off.square().mean()))


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_the_measures_do_not_depend_on_scale_and_see_collapse(shape):
    x = normal(*shape)
    one, other = measure_spread(x), measure_spread(1e-3 * x)
    assert one == pytest.approx(other)
    assert one["variance"] > 0.8
    assert one["effective rank"] > 5
    same = measure_spread(torch.ones(shape))
    assert (same["variance"], same["covariance"]) == (0.0, 1.0)
    assert same["rank me"] == pytest.approx(1.0)
    line = measure_spread(normal(*shape, rank=1))
    assert line["effective rank"] == pytest.approx(1.0)
    assert line["covariance"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least two samples"):
        measure_spread(x[:1])


def test_lidar_is_the_rank_of_a_discriminant_analysis():
    """scipy's generalised eigenvalues of scatters that are summed view by view."""
    x = normal(60, 5).reshape(12, 5, 5) + 3 * normal(12, 5)[:, None]
    means = x.mean(dim=1).numpy()
    between = np.mean([np.outer(m, m) for m in means - means.mean(axis=0)], axis=0)
    within = np.mean([np.outer(v - m, v - m) for m, views in zip(means, x.numpy(), strict=True) for v in views], axis=0)
    added = 1e-4 * np.trace(between + within) / 5
    p = scipy.linalg.eigh(between, within + added * np.eye(5), eigvals_only=True)
    p = p / p.sum()
    assert lidar(x) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-9)
    assert lidar(1e3 * x) == pytest.approx(lidar(x))


def test_lidar_counts_directions_in_which_samples_differ_by_more_than_their_views():
    samples, noise = normal(200, 6), normal(1200, 6).reshape(200, 6, 6).roll(1, dims=0)
    assert lidar(samples[:, None] + 0.1 * noise) > 5.5
    scale = torch.tensor([10.0, 10.0, 1e-2, 1e-2, 1e-2, 1e-2])
    of_two = samples[:, None] * scale + noise
    assert lidar(of_two) < 2.1
    assert measure_spread(normal(200, 6, rank=1))["effective rank"] == pytest.approx(1.0)
    assert lidar(normal(200, 6, rank=1)[:, None] + 1e-3 * noise) < 1.1
    assert lidar(torch.ones(4, 2, 3)) == 1.0
    with pytest.raises(ValueError, match="two views of at least two samples"):
        lidar(samples[:, None])


CUT = (*CUTS["ijepa"], "batch_size=4", "schedule.steps=8")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image", tmp_path_factory.mktemp("guard") / "image")


def trainer_of(split, out, *, collapse=None, **options):
    """A small I-JEPA run; while `collapse(lr)` holds, the watched vectors of the samples are the same."""
    recipe = chosen_recipe("ijepa-tiny", CUT)
    loader = recipe.loader(split, steps=8, device="cpu", threads=1)
    trainer = Trainer(recipe, loader, out, steps=8, progress=False, guard_every=1, **options)
    if collapse is not None:
        own = trainer.model.watched

        def watched(batch):
            lr = trainer.optimiser.param_groups[0]["lr"]
            return {name: x * 0 + 1 if collapse(trainer.step, lr) else x for name, x in own(batch).items()}

        trainer.model.watched = watched
    return trainer


def always(step, lr):
    return step > 3


def test_a_collapse_is_logged_once_a_time_and_its_measures_are_in_the_metrics(split, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trainer_of(split, tmp_path, collapse=always, guard="log").run()
    told = [r.getMessage() for r in caplog.records if "have collapsed" in r.getMessage()]
    assert len(told) == 2, "steps 4 and 5, 6 and 7 are below the line; 8 is below it once"
    assert "after step 5: features: variance is 0, below 0.000" in told[0]
    assert "targets: token rank is 1, below " in told[0]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert all({"features: variance", "targets: rank me"} <= row.spread.keys() for row in rows)
    assert rows[7].spread["features: variance"] == 0.0 < rows[0].spread["features: variance"]


def test_a_student_that_collapses_alone_is_seen_while_its_teacher_lags(split, tmp_path):
    """Its embedding no longer tells samples apart; the teacher, a moving average, still does."""
    trainer = trainer_of(split, tmp_path, guard="stop")
    trainer.run(until=3)
    with torch.no_grad():
        trainer.model.encoder.embed[0].weight.zero_()
    with pytest.raises(CollapseError, match=r"after step 5: features: variance is [^;]*") as caught:
        trainer.run()
    assert "targets" not in str(caught.value)
    spread = read_metrics(tmp_path / "metrics.jsonl")[-1].spread
    assert spread["features: variance"] < 1e-4 < 0.5 * spread["targets: variance"]


def test_a_low_token_rank_of_the_student_alone_is_no_collapse():
    """Sound runs have it for long, with samples that differ more than ever."""
    guard = Guard(Two(normal(64, 8), normal(64, 8)), "stop", 1, CPU)
    guard.measure(Whole())
    line = normal(64, 8, rank=1) + 0.3
    for student, teacher, low in ((line, normal(64, 8), False), (normal(64, 8), line, False), (line, line, True)):
        guard._model.student, guard._model.teacher = student.reshape(8, 8, 8), teacher.reshape(8, 8, 8)
        guard.measure(Whole())
        assert guard.is_low == low, guard.why


def test_the_first_measurement_draws_the_line_and_a_resumed_run_keeps_it(split, tmp_path):
    trainer_of(split, tmp_path, guard="log").run(until=3)
    first = trainer_of(split, tmp_path, guard="log")
    assert first._guard.first == first.tally.spread == read_metrics(tmp_path / "metrics.jsonl")[0].spread
    assert find_line("targets: token rank", 11.0) == pytest.approx(3.0)
    assert find_line("targets: variance", 1e-3) == LEAST
    assert find_line("targets: covariance", 0.5) is None


def test_tokens_along_one_line_are_seen_where_samples_differ():
    """What a learning rate that is far too high does: the samples differ as much as ever."""
    guard = Guard(Tokens(normal(64, 8).reshape(8, 8, 8)), "stop", 1, CPU)
    before = guard.measure(Whole())
    assert not guard.is_low
    guard._model.tokens = normal(64, 8, rank=1).reshape(8, 8, 8) + 0.3
    after = guard.measure(Whole())
    assert guard.is_low
    assert not guard.has_collapsed
    assert after["tokens: variance"] > 0.3 * before["tokens: variance"]
    assert guard.why == "tokens: token rank is 1, below 2.31"


def test_views_of_a_sample_are_compared_where_they_differ():
    """Rows of a sample follow one another; a model that gives one row for all masks of a sample has no views."""
    x = normal(24, 8).reshape(12, 2, 8)
    guard = Guard(Tokens(x), "stop", 1, CPU, views=3)
    found = guard.measure(Whole(12))
    assert found["tokens: lidar"] == pytest.approx(lidar(x.float().mean(dim=1).reshape(4, 3, 8)))
    guard._model.tokens = x[:4]
    assert not any("lidar" in name for name in guard.measure(Whole(12)))
    assert not any("lidar" in name for name in Guard(Tokens(x), "stop", 1, CPU).measure(Whole(12)))


class Whole:
    """A batch that is on every device."""

    def __init__(self, rows=1):
        self.rows = rows

    def __len__(self):
        return self.rows

    def to(self, device, non_blocking=False):
        return self


class Two(torch.nn.Module):
    """A model whose student and teacher give these vectors of tokens."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = (one.reshape(8, 8, 8) for one in (student, teacher))

    def watched(self, batch):
        return {"features": self.student, "targets": self.teacher}


class Tokens(torch.nn.Module):
    """A model of which vectors of tokens are watched that are given."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def watched(self, batch):
        return {"tokens": self.tokens}


def test_a_collapse_stops_a_run(split, tmp_path):
    with pytest.raises(CollapseError, match=r"collapsed after step 5: .*start over with a lower base_lr"):
        trainer_of(split, tmp_path, collapse=always, guard="stop").run()
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 5


def test_a_run_rolls_back_to_its_last_sound_checkpoint_with_a_lower_rate_and_ends(split, tmp_path):
    whole = trainer_of(split, tmp_path / "whole")
    whole.run()
    trainer = trainer_of(
        split, tmp_path / "back", collapse=lambda step, lr: step > 3 and lr > 3e-5, guard="rollback", save_every=2
    )
    assert whole.recipe.schedule.lr(4, 8, 4) > 3e-5
    trainer.run()
    one, other = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "back"))
    assert [row.step for row in other] == list(range(1, 9))
    backs = trainer.tally.rollbacks
    assert backs[0].to == 2
    assert backs[0].at == 5
    assert [row.loss for row in other[:2]] == [row.loss for row in one[:2]]
    assert other[7].lr == pytest.approx(one[7].lr * 0.3 ** len(backs))
    saved = json.loads((tmp_path / "back/checkpoints/step-00000008/state.json").read_bytes())
    assert [back["to"] for back in saved["tally"]["rollbacks"]] == [back.to for back in backs]


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_without_a_checkpoint_rolls_back_to_its_first_weights(split, tmp_path, resume):
    trainer = trainer_of(
        split, tmp_path, collapse=lambda step, lr: not trainer.tally.rollbacks, guard="rollback", resume=resume
    )
    trainer.run()
    assert [(back.at, back.to) for back in trainer.tally.rollbacks] == [(3, 0)]
    plain = trainer_of(split, tmp_path / "plain")
    plain.run(until=1)
    rows = (read_metrics(tmp_path / name / "metrics.jsonl")[0] for name in ("", "plain"))
    assert len({row.loss for row in rows}) == 1


def test_a_run_that_collapses_again_and_again_ends(split, tmp_path):
    trainer = trainer_of(split, tmp_path, collapse=lambda step, lr: True, guard="rollback")
    with pytest.raises(CollapseError, match=f"as they had {MOST_ROLLBACKS} times before"):
        trainer.run()


def test_auto_watches_models_that_may_collapse_alone(split, recipe):
    assert Guard(chosen_recipe("ijepa-tiny", CUT).build(), "auto", 1, CPU).mode == "log"
    assert Guard(recipe.build(), "auto", 1, CPU).mode == "off"
    assert Guard(recipe.build(), "stop", 1, CPU).mode == "stop"
    no_features = chosen_recipe("vq-tiny", CUTS["vq"]).build()
    with pytest.raises(ValueError, match="has none; use 'off'"):
        Guard(no_features, "log", 1, CPU)


def tinted(raw):
    """Pictures each of which has a colour of its own, under patches of any."""
    samples = []
    for i in range(SAMPLES):
        rng = np.random.default_rng(i)
        smooth = (0.7 * rng.integers(0, 256, 3) + 0.3 * rng.integers(0, 256, (5, 7, 3))).astype(np.uint8)
        cv2.imwrite(str(raw / f"{i}.png"), cv2.resize(smooth, (70, 70), interpolation=cv2.INTER_CUBIC))
        made = ImageEncoder().encode(Raw(id=f"{i}", path=raw / f"{i}.png"))
        members = {**made.members, "json": json_member(made.meta)}
        samples.append(Sample(key=f"s{i}", members=members, source=f"{i}", label=i % 2))
    return samples


STEPS, SEEDS = 200, range(10, 20)
"""Of the runs of which docs/training.md says how many collapses were caught, and how many alarms were false."""


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return write_split("image", tmp_path_factory.mktemp("guard") / "colours", tinted)


def guarded_run(split, out, seed, monkeypatch, kind):
    """The first step after which the guard stops a small run of I-JEPA, None where it ends.

    kind: "sound"; "open", whose targets follow the predictions, without stop-gradient and momentum; "fast", whose
    learning rate is 30 times as high.
    """
    cut = (
        *(*CUTS["ijepa"], "model.depth=2", "batch_size=8", f"schedule.steps={STEPS}", "schedule.base_lr=0.032"),
        *("model.target_norm=tokens", "model.momentum.start=0.98"),
    )
    recipe = chosen_recipe("ijepa-tiny", cut)
    if kind == "fast":
        recipe = replace(recipe, schedule=replace(recipe.schedule, base_lr=30 * recipe.schedule.base_lr))
    with monkeypatch.context() as patch:
        if kind == "open":
            recipe = replace(recipe, model=replace(recipe.model, momentum=Linear(start=0.0, end=0.0)))
            patch.setattr(Jepa, "targets", open_targets)
        loader = recipe.loader(split, steps=STEPS, device="cpu", threads=1, seed=seed)
        trainer = Trainer(recipe, loader, out, steps=STEPS, progress=False, guard="stop", seed=seed)
        with suppress(CollapseError):
            trainer.run()
    return None if trainer.step == STEPS else trainer.step


def open_targets(self, data):
    return self.normalised(self._encode(self.encoder, data))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sound", "open", "fast"])
def test_every_forced_collapse_is_caught_and_no_sound_run_is(colours, tmp_path, monkeypatch, kind):
    stopped = [guarded_run(colours, tmp_path / str(seed), seed, monkeypatch, kind) for seed in SEEDS]
    print(kind, stopped)
    assert all((step is None) == (kind == "sound") for step in stopped)


def test_a_probe_reads_classes_while_a_model_trains(split, tmp_path):
    recipe = chosen_recipe("ijepa-tiny", CUT)
    probe = OnlineProbe.of(recipe.data, split, Manifest.load(split), every=3)
    loader = recipe.loader(split, steps=8, device="cpu", threads=1)
    Trainer(recipe, loader, tmp_path / "probed", steps=8, progress=False, hooks=[probe]).run()
    rows = read_metrics(tmp_path / "probed/metrics.jsonl")
    assert [row.step for row in rows if row.val] == [3, 6, 8]
    assert all(0 <= value <= 1 for row in rows for value in row.val.values())
    plain = trainer_of(split, tmp_path / "plain")
    plain.run()
    assert [row.loss for row in rows] == [row.loss for row in read_metrics(tmp_path / "plain/metrics.jsonl")]


def test_a_probe_finds_classes_that_features_tell_and_none_that_they_do_not():
    labels = torch.arange(200) % 4
    rng = torch.Generator().manual_seed(0)
    good = torch.nn.functional.one_hot(labels, 4) + 0.1 * torch.randn(200, 4, generator=rng)
    noise = torch.randn(200, 300, generator=rng)

    class Fixed(torch.nn.Module):
        def __init__(self, x):
            super().__init__()
            self.x = x

        def features(self, batch):
            return self.x

    probe = OnlineProbe(batches=[(Whole(), torch.arange(200))], labels=labels, every=1)
    shuffled = replace(probe, labels=labels[torch.randperm(200, generator=rng)])
    for name in (KNN, LINEAR):
        assert probe.measure(Fixed(good), CPU)[name] > 0.95
        assert shuffled.measure(Fixed(noise), CPU)[name] < 0.5
