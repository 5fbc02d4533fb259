"""A step of micro-batches is the step of one batch, in every precision; what is drawn in it depends on its place."""

import json
import math
from dataclasses import fields, replace
from inspect import signature
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskstream.train import Trainer, load_model, read_metrics
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.model import Losses, weighted
from maskstream.train.core.optimiser import OptimiserConfig
from maskstream.train.core.options import LoopSettings
from maskstream.train.core.process import choose_precision, derive_step_seed
from maskstream.train.core.step import INTERVAL, LossScale, Stepper, StepSettings, count_flops

CPU = torch.device("cpu")


def stepped(model, batches, dtype=torch.float32, scale=None):
    """The weights after a step of the micro-batches, and the step's report."""
    config = OptimiserConfig(max_grad_norm=0.5)
    optimiser = torch.optim.SGD(model.parameters())
    stepper = Stepper(model, model, optimiser, config, StepSettings(device=CPU, seed=0, dtype=dtype), scale=scale)
    report = stepper.step(batches, number=0, lr=0.01, asked_to_stop=False)
    return {name: p.detach().clone() for name, p in model.named_parameters()}, report


def near(one, other, limit):
    return all((one[name] - other[name]).abs().max() <= limit * max(other[name].abs().max(), 1e-3) for name in other)


@pytest.mark.parametrize("uneven", [False, True])
def test_two_micro_batches_make_the_gradient_of_one_batch(recipe, synthetic_loader, uneven):
    halves = [synthetic_loader(size=2, rank=r, ranks=2, uneven=uneven).make(0, 0) for r in range(2)]
    whole = synthetic_loader(size=4, uneven=uneven).make(0, 0)
    gradients = []
    for batches in ([whole], halves):
        model = recipe.build(seed=1)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
        taken = {}
        optimiser.register_step_pre_hook(
            lambda *_, model=model, taken=taken: taken.update({n: p.grad.clone() for n, p in model.named_parameters()})
        )
        report = Stepper(model, model, optimiser, OptimiserConfig(), StepSettings(device=CPU, seed=0)).step(
            batches, number=0, lr=0.0, asked_to_stop=False
        )
        gradients.append((taken, report.values))
    (one, values), (two, other) = gradients
    assert near(two, one, 1e-5)
    flat = [torch.cat([g.flatten() for g in taken.values()]) for taken in (one, two)]
    assert (flat[0] - flat[1]).norm() <= 1e-6 * flat[0].norm()
    assert torch.allclose(values, other, rtol=1e-5)


class TwoParts(nn.Module):
    """A loss of two parts whose weights are not proportional to each other."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, batch):
        made = self.layer(batch.x)
        return Losses(
            parts={
                "a": weighted(made[:, 0] ** 2, batch.a),
                "b": weighted(made[:, 1].abs(), batch.b, share=0.3),
            }
        )


class Rows:
    def __init__(self, rows):
        x = torch.arange(24.0).reshape(8, 3).sin()
        self.x, self.a, self.b = x[rows], torch.arange(8.0)[rows], torch.ones(8)[rows] * (torch.arange(8) > 4)[rows]

    def __len__(self):
        return len(self.x)

    def to(self, device, *, non_blocking=False):
        return self


@pytest.mark.parametrize("cuts", [[0, 4, 8], [0, 1, 2, 5, 8]])
def test_parts_that_weigh_differently_in_each_micro_batch_are_divided_by_the_weight_of_all(cuts):
    made = []
    for bounds in ([0, 8], cuts):
        torch.manual_seed(0)
        batches = [Rows(slice(a, b)) for a, b in pairwise(bounds)]
        made.append(stepped(TwoParts(), batches))
    (whole, one), (parts, other) = made
    assert near(parts, whole, 1e-6)
    assert torch.allclose(one.values, other.values, rtol=1e-6)
    assert one.parts == ("a", "b")
    a, b = one.values[3:5].tolist()
    assert one.values[0].item() == pytest.approx(a + 0.3 * b)


def test_a_micro_batch_without_weight_changes_nothing(recipe, synthetic_loader):
    batch = synthetic_loader(size=2).make(0, 0)
    empty = replace(batch, mask=replace(batch.mask, weight=torch.zeros_like(batch.mask.weight)))
    alone, _ = stepped(recipe.build(seed=1), [batch])
    for batches in ([batch, empty], [empty, batch]):
        weights, report = stepped(recipe.build(seed=1), batches)
        assert near(weights, alone, 1e-6)
        assert report.values.isfinite().all()
    _, report = stepped(recipe.build(seed=1), [empty, empty])
    assert report.values.tolist() == [0.0] * 6


def test_a_run_that_accumulates_is_the_run_of_larger_batches_and_resumes(recipe, synthetic_loader, tmp_path):
    class Halves(synthetic_loader):
        """Each batch in two."""

        def make(self, epoch, b):
            return synthetic_loader(size=2, rank=b % 2, ranks=2).make(epoch, b // 2)

    def run(name, loader, until=None, **fields):
        own = replace(recipe, **fields)
        return Trainer(own, loader, tmp_path / name, steps=7, precision="fp32", progress=False).run(until)

    run("whole", synthetic_loader(batches=3, size=4))
    small = {"batch_size": 2, "accumulate": 2}
    run("parts", Halves(batches=6, size=2), 4, **small)
    assert run("parts", Halves(batches=6, size=2), **small).finished
    whole, parts = (load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "parts"))
    assert near(parts, whole, 1e-4)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert [m.epoch for m in rows[1]] == [0] * 3 + [1] * 3 + [2]
    assert [m.lr for m in rows[0]] == [m.lr for m in rows[1]]


def test_what_is_drawn_depends_on_the_seed_the_step_the_rank_and_the_micro_batch():
    places = [
        (seed, step, rank, part) for seed in range(3) for step in range(3) for rank in range(3) for part in (0, 1)
    ]
    assert len({derive_step_seed(*place) for place in places}) == len(places)
    assert derive_step_seed(1, 2, 3, 4) == derive_step_seed(1, 2, 3, 4)


def test_a_run_with_dropout_resumes_bit_by_bit(recipe, synthetic_loader, tmp_path):
    rates = DropoutConfig(hidden=0.5, inner=0.3, attention=0.1, path=0.2)
    dropping = replace(recipe, model=replace(recipe.model, dropout=rates))

    def run(name, until=None):
        Trainer(dropping, synthetic_loader(), tmp_path / name, steps=6, progress=False).run(until)
        return [m.loss for m in read_metrics(tmp_path / name / "metrics.jsonl")]

    before = torch.random.get_rng_state()
    whole = run("whole")
    run("parts", 2)
    torch.rand(17)
    assert run("parts") == whole
    one, other = (load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    torch.random.set_rng_state(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_makes_about_the_same_gradient(recipe, batch, dtype):
    exact, report = stepped(recipe.build(seed=1), [batch])
    scale = LossScale() if dtype == torch.float16 else None
    _, half = stepped(recipe.build(seed=1), [batch], dtype=dtype, scale=scale)
    assert half.values[:2].tolist() == pytest.approx(report.values[:2].tolist(), rel=0.03)
    assert half.values.tolist() != report.values.tolist()
    assert exact


def test_the_loss_scale_halves_after_an_overflow_and_doubles_after_many_good_steps():
    scale = LossScale(value=8.0)
    scale.update(overflowed=True)
    assert (scale.value, scale.good_steps) == (4.0, 0)
    for _ in range(INTERVAL):
        scale.update(overflowed=False)
    assert (scale.value, scale.good_steps) == (8.0, 0)


def test_a_run_in_float16_keeps_its_loss_scale_in_checkpoints(recipe, synthetic_loader, tmp_path):
    def run(name, until=None):
        trainer = Trainer(recipe, synthetic_loader(), tmp_path / name, steps=4, precision="fp16", progress=False)
        trainer.run(until)
        return trainer

    run("run", 2)
    state = json.loads((tmp_path / "run/checkpoints/step-00000002/state.json").read_text())
    assert state["tally"]["scale"] == {"value": 65536.0, "good_steps": 2}
    run("run")
    run("whole")
    one, other = (load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_precision_is_chosen_by_name_or_by_what_the_device_gains(monkeypatch):
    for helps, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("maskstream.train.core.process.is_bf16_faster", lambda device, helps=helps: helps)
        assert choose_precision("auto", CPU) == dtype
        assert choose_precision("fp16", CPU) == torch.float16
        assert choose_precision("fp32", CPU) == torch.float32


def spoilt(trainer, steps):
    """Makes the gradient of some steps, counted from 1, NaN."""
    trainer.model.decoder.head[0].bias.register_hook(
        lambda gradient: gradient * math.nan if trainer.step + 1 in steps else gradient
    )
    return trainer


def test_steps_that_are_not_finite_are_skipped_counted_and_named(recipe, synthetic_loader, tmp_path, caplog):
    def trainer(steps, **settings):
        return spoilt(
            Trainer(recipe, synthetic_loader(), tmp_path, steps=9, on_nan="skip", progress=False, **settings), steps
        )

    run = trainer({2, 3, 6}, save_every=1)
    before = {}
    run.optimiser.register_step_pre_hook(lambda *_: before.update({run.step: True}))
    assert run.run().finished
    assert sorted(before) == [0, 3, 4, 6, 7, 8]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [m.step for m in rows if m.skipped] == [2, 3, 6]
    assert all(math.isfinite(m.loss) for m in rows)
    assert "gradient norm of step 6 is nan" in caplog.text
    state = json.loads((tmp_path / "checkpoints/step-00000009/state.json").read_text())
    assert state["tally"]["skipped"] == 3
    weights = load_model(tmp_path / "model.safetensors").state_dict().values()
    assert all(tensor.isfinite().all() for tensor in weights)
    with pytest.raises(FloatingPointError, match=r"of step 4 is nan .* as in the 2 previous steps"):
        trainer(range(2, 9), resume=False, most_skips=2).run()


def test_operations_of_a_step_are_those_of_its_products_and_its_attention():
    layer, x = nn.Linear(6, 5), torch.ones(4, 6)
    assert count_flops(layer, lambda: layer(x).sum()) == 2 * (2 * 4 * 6 * 5)
    assert layer.weight.grad is None
    block = nn.Linear(8, 8)

    def attended():
        q = block(torch.ones(1, 1, 16, 8))
        return F.scaled_dot_product_attention(q, q, q).sum()

    linear, products = 2 * 2 * 16 * 8 * 8, 2 * 3 * 2 * 16 * 16 * 8
    assert count_flops(block, attended) == linear + products


def test_after_ten_steps_metrics_say_what_share_of_the_devices_rate_is_used(recipe, synthetic_loader, tmp_path):
    Trainer(recipe, synthetic_loader(), tmp_path, steps=12, progress=False).run()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [m.flops is None for m in rows] == [True] * 10 + [False] * 2
    assert rows[10].flops == rows[11].flops > 1e6
    assert all(0 < m.mfu < 1 for m in rows[10:])
    assert all(0 < m.goodput <= 1 for m in rows)


def test_a_trainer_takes_every_setting_of_the_loop_by_its_name():
    assert signature(Trainer).parameters.keys() >= {f.name for f in fields(LoopSettings)}


def test_settings_that_are_not_legal_are_refused_by_name(recipe, synthetic_loader, tmp_path):
    for name in ("precision", "compile", "parallel", "on_nan"):
        with pytest.raises(ValueError, match=rf"{name} must be '.*, got 'half'"):
            Trainer(recipe, synthetic_loader(), tmp_path, **{name: "half"})
    with pytest.raises(ValueError, match="accumulate must be an integer of at least 1, got 0"):
        replace(recipe, accumulate=0)
