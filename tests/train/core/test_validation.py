"""Validation while a model trains: what it finds, what it keeps, and that training does not notice it."""

import json
from dataclasses import replace

import pytest
import torch

from maskstream.train import Trainer, load_model, read_metrics
from maskstream.train.core.checkpoint import CHECKPOINTS
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.validation import BEST, Validation
from maskstream.train.core.weights import compute_weights_sum
from maskstream.train.evaluate.evaluation import Score
from maskstream.train.evaluate_run import evaluate_run
from maskstream.train.recipes import train

from .test_parallel import equal, numbers, trained, weights

STEPS = 6


def held_out(batch, lower_is_better=True):
    """Scores of a model on a batch that no loader gives: its loss, and its size."""

    def measure(model):
        assert not model.training
        torch.rand(7)
        with torch.no_grad():
            loss = float(model(batch).loss())
        size = sum(float(p.detach().double().square().sum()) for p in model.parameters())
        return [Score(name="loss", value=loss, lower_is_better=lower_is_better), Score(name="size", value=size)]

    return measure


@pytest.fixture
def dropping(recipe):
    return replace(recipe, model=replace(recipe.model, dropout=DropoutConfig(hidden=0.2)))


@pytest.fixture
def run(dropping, synthetic_loader, tmp_path, noise):
    def run(name, until=None, recipe=dropping, lower_is_better=True, **options):
        if "every" in options or "best" in options:
            chosen = {key: options.pop(key) for key in ("every", "best", "patience") if key in options}
            options["validation"] = Validation(measure=held_out(noise, lower_is_better), **chosen)
        trainer = Trainer(recipe, synthetic_loader(), tmp_path / name, steps=STEPS, progress=False, **options)
        trainer.run(until)
        return tmp_path / name

    return run


def rows(folder):
    return read_metrics(folder / "metrics.jsonl")


def same(one, other):
    mine, theirs = (load_model(folder / "model.safetensors").state_dict() for folder in (one, other))
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_is_validated_every_so_many_steps_and_at_the_end_and_trains_the_same(run):
    torch.manual_seed(5)
    plain, validated = run("plain"), run("validated", every=4, keep=1)
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(5)))
    assert same(plain, validated)
    assert [(m.loss, m.grad_norm) for m in rows(plain)] == [(m.loss, m.grad_norm) for m in rows(validated)]
    assert [m.step for m in rows(validated) if m.val] == [4, 6]
    assert not any(m.val for m in rows(plain))
    assert not (plain / BEST).exists()


@pytest.mark.parametrize("lower", [True, False])
def test_the_weights_of_the_best_score_stay(run, noise, lower):
    out = run("run", every=1, keep=1, lower_is_better=lower)
    values = [m.val["loss"] for m in rows(out)]
    best = (min if lower else max)(values)
    assert held_out(noise)(load_model(out / BEST))[0].value == best
    assert len(list((out / CHECKPOINTS).iterdir())) == 1
    assert held_out(noise)(load_model(out / "model.safetensors"))[0].value == values[-1]


def test_the_score_that_decides_is_named(run, noise):
    out = run("run", every=2, best="size")
    sizes = [m.val["size"] for m in rows(out) if m.val]
    assert held_out(noise)(load_model(out / BEST))[1].value == min(sizes)
    with pytest.raises(ValueError, match=r"got 'accuracy'; this recipe has 'loss', 'size'"):
        run("other", every=2, best="accuracy")
    with pytest.raises(ValueError, match="every"):
        run("third", every=0)


def test_a_resumed_run_finds_and_keeps_the_same(run):
    whole = run("whole", every=1, save_every=100)
    for until in (1, 4):
        parts = run(f"parts {until}", until, every=1, save_every=100)
        run(f"parts {until}", every=1, save_every=100)
        assert [m.val for m in rows(parts)] == [m.val for m in rows(whole)]
        assert compute_weights_sum(parts / BEST) == compute_weights_sum(whole / BEST)


def test_a_run_ends_after_as_many_validations_without_a_better_score_as_it_has_patience_for(run):
    whole = run("whole", every=1)
    values = [m.val["loss"] for m in rows(whole)]
    worse = {"every": 1, "lower_is_better": values[-1] > values[0]}  # the first stays the best
    out = run("run", patience=3, **worse)
    assert [m.step for m in rows(out)] == [1, 2, 3, 4]
    assert compute_weights_sum(out / BEST)[1] == 1
    assert compute_weights_sum(out / "model.safetensors")[1] == 4
    parts = run("parts", 2, patience=3, **worse)
    for _ in range(2):  # the second finds that it has ended
        run("parts", patience=3, **worse)
    assert same(out, parts)
    assert [m.val for m in rows(parts)] == [m.val for m in rows(out)]
    with pytest.raises(ValueError, match="patience"):
        run("third", every=1, patience=0)


def test_best_weights_that_a_killed_run_did_not_write_are_written_by_the_next(run):
    out = run("run", 1, every=1)
    kept = compute_weights_sum(out / BEST)
    (out / BEST).unlink()
    run("run", 1, every=1)
    assert compute_weights_sum(out / BEST) == kept
    run("run", every=1, resume=False)
    assert json.loads((out / "run.json").read_text())["val"] == {}


def test_the_average_is_validated_where_the_recipe_keeps_one(run, dropping, noise):
    recipe = replace(dropping, optimiser=replace(dropping.optimiser, average=0.5))
    out = run("run", every=3, recipe=recipe)
    assert held_out(noise)(load_model(out / "model.safetensors"))[0].value == rows(out)[-1].val["loss"]


@pytest.mark.slow
def test_ranks_that_share_weights_find_what_one_finds_and_train_the_same(tmp_path):
    plain, one, two = (tmp_path / name for name in ("plain", "one", "two"))
    trained(1, one, validated=3)
    trained(2, two, validated=3, parallel="fsdp")
    trained(2, plain, parallel="fsdp")
    assert numbers(two) == numbers(plain)
    assert equal(weights(two), weights(plain))
    found = [[m.val["loss"] for m in rows(out) if m.val] for out in (one, two)]
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert compute_weights_sum(two / BEST)[1] in (3, 6, 7)


@pytest.mark.slow
def test_train_validates_as_evaluate_measures(eleven, tmp_path):
    settings = ["clip.frames=4", "clip.stride=1", "clip.size=32", "data.patch=8", "batch_size=2", "model.width=32"]
    options = {"set": settings, "steps": 3, "progress": False, "device": "cpu", "every": 2}
    with pytest.raises(ValueError, match="measures memorisation"):
        train("videomae-tiny", eleven, tmp_path, val=eleven, **options)
    train("videomae-tiny", eleven, tmp_path, val=eleven, same_split=True, **options)
    found = evaluate_run(tmp_path, eleven, same_split=True)
    assert {one.name: one.value for one in found.scores} == rows(tmp_path)[-1].val
    assert [m.step for m in rows(tmp_path) if m.val] == [2, 3]
