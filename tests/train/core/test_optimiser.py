import math
from itertools import pairwise

import pytest
import torch

from maskstream.train.core.optimiser import (
    OptimiserConfig,
    ScheduleConfig,
    build_optimiser,
    find_matrices,
    limit_gradients,
    set_lr,
)
from maskstream.train.nn.encoder_decoder import TokenDecoder
from maskstream.train.nn.transformer import BlockSizes
from maskstream.train.papers.fastdit3d.model import Experts


def test_only_matrices_decay(recipe):
    model = recipe.build()
    decayed, kept = build_optimiser(model, OptimiserConfig(weight_decay=0.1)).param_groups
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    names = [{name_of[p] for p in group["params"]} for group in (decayed, kept)]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert names[0] | names[1] == set(name_of.values())
    assert all(name.endswith("weight") and "norm" not in name for name in names[0])
    assert {"decoder.mask_token", "encoder.embed.0.bias"} | {
        f"encoder.stacks.0.{n}" for n in ("norm.of.0.weight", "blocks.0.attention.q_bias")
    } <= names[1]


def test_tables_of_embeddings_and_biases_of_experts_do_not_decay():
    experts, decoder = (
        Experts(8, 2, 3),
        TokenDecoder(8, [4, 4], [torch.zeros(5, 8)] * 2, BlockSizes(1, 2, 2, 1e-6)),
    )
    assert find_matrices(experts) == {"router.weight", "up", "down"}
    assert "kind" in dict(decoder.named_parameters())
    assert "kind" not in find_matrices(decoder)
    assert find_matrices(torch.nn.ModuleDict({"table": torch.nn.Embedding(3, 4), "layer": torch.nn.Linear(4, 4)})) == {
        "layer.weight"
    }


def test_the_first_step_moves_a_weight_by_the_rate_and_the_decay():
    layer = torch.nn.Linear(1, 1)
    before = [p.detach().clone() for p in layer.parameters()]
    optimiser = build_optimiser(layer, OptimiserConfig(weight_decay=0.5))
    set_lr(optimiser, 0.01)
    layer(torch.ones(1, 1)).sum().backward()
    optimiser.step()
    assert torch.allclose(layer.weight, before[0] * (1 - 0.01 * 0.5) - 0.01, atol=1e-6)
    assert torch.allclose(layer.bias, before[1] - 0.01, atol=1e-6)


def test_gradients_are_scaled_down_to_the_limit_and_never_up():
    layer = torch.nn.Linear(3, 1, bias=False)
    for limit, length, expected in ((0.02, 5.0, 0.02), (10.0, 5.0, 5.0), (None, 5.0, 5.0)):
        layer.weight.grad = torch.tensor([[length, 0.0, 0.0]])
        norm, parts = limit_gradients(layer, OptimiserConfig(max_grad_norm=limit))
        assert norm.item() == parts["weight"].item() == pytest.approx(length)
        assert layer.weight.grad.norm().item() == pytest.approx(expected, rel=1e-3)


def test_the_rate_rises_linearly_and_falls_as_half_a_cosine():
    schedule = ScheduleConfig(base_lr=1.0, min_lr=0.1, warmup=0.1)
    rates = [schedule.lr(step, 100, 256) for step in range(100)]
    rises = [b - a for a, b in pairwise(rates[:11])]
    assert rises == pytest.approx([rises[0]] * 10)
    assert rates[0] > 0
    assert max(rates) == rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert schedule.lr(100, 100, 256) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"shape": "linear"}, [0.1 + 0.9 * (1 - i / 90) for i in range(91)]),
        ({"shape": "constant"}, [1.0] * 91),
        ({"shape": "exponential"}, [0.1 ** (i / 90) for i in range(91)]),
        (
            {"shape": "multistep", "milestones": (0.4, 0.6, 0.8), "factor": 0.5},
            [1.0] * 30 + [0.5] * 20 + [0.25] * 20 + [0.125] * 21,
        ),
        ({"shape": "multistep", "milestones": (0.5,), "factor": 0.01}, [1.0] * 40 + [0.1] * 51),
        ({"shape": "trapezoid", "cooldown": 0.25}, [1.0] * 65 + [1 - 0.9 * math.sqrt(i / 25) for i in range(26)]),
    ],
)
def test_the_rate_falls_by_its_shape_behind_the_same_warm_up(shape, expected):
    cosine, schedule = (ScheduleConfig(base_lr=1.0, min_lr=0.1, warmup=0.1, **one) for one in ({}, shape))
    rates = [schedule.lr(step, 100, 512) for step in range(101)]
    assert rates[:10] == [cosine.lr(step, 100, 512) for step in range(10)]
    assert rates[10:] == pytest.approx([2 * rate for rate in expected])


def test_schedules_are_torch_s():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimiser, [10, 15, 20], gamma=0.5)
    ours = ScheduleConfig(base_lr=1.0, warmup=0.0, shape="multistep", milestones=(0.4, 0.6, 0.8), factor=0.5)
    for step in range(25):
        assert ours.lr(step, 25, 256) == pytest.approx(theirs.get_last_lr()[0])
        optimiser.step()
        theirs.step()


def test_the_rate_grows_with_the_samples_of_a_step():
    schedule = ScheduleConfig(base_lr=1e-3, min_lr=1e-5)
    assert schedule.lr(30, 100, 1024) == pytest.approx(4 * schedule.lr(30, 100, 256))
    assert schedule.lr(100, 100, 1024) == pytest.approx(4e-5)


def test_a_run_is_as_long_as_its_epochs_unless_steps_are_given():
    assert ScheduleConfig(base_lr=1.0, epochs=3).run_length(7) == 21
    assert ScheduleConfig(base_lr=1.0, epochs=3, steps=5).run_length(7) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_lr": 0},
        {"base_lr": 1, "min_lr": 2},
        {"base_lr": 1, "warmup": 1},
        {"base_lr": 1, "steps": 0},
        {"base_lr": 1, "shape": "step"},
        {"base_lr": 1, "shape": "multistep"},
        {"base_lr": 1, "milestones": (0.5,)},
        {"base_lr": 1, "shape": "multistep", "milestones": (0.5, 0.2)},
        {"base_lr": 1, "shape": "multistep", "milestones": (0.5,), "factor": 2.0},
        {"base_lr": 1, "shape": "exponential"},
        {"base_lr": 1, "shape": "trapezoid"},
        {"base_lr": 1, "cooldown": 0.1},
        {"base_lr": 1, "shape": "trapezoid", "cooldown": 0.96},
    ],
)
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        ScheduleConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"betas": (0.9, 1.0)}, {"max_grad_norm": 0.0}, {"weight_decay": -1.0}])
def test_impossible_optimisers_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        OptimiserConfig(**wrong)
