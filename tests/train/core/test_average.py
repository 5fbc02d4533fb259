"""The moving average of the weights is kept, resumed and exported; rates fall block by block; blocks can be computed
again.
"""

from dataclasses import replace

import pytest
import torch

from maskstream.train import Trainer, load_model
from maskstream.train.core.dropout import DropoutConfig, set_dropout
from maskstream.train.core.optimiser import Average, OptimiserConfig, build_optimiser, compute_layer_rates, set_lr
from maskstream.train.core.parallel import named_blocks, recompute_blocks
from maskstream.train.core.run_folder import run_weights


def test_the_average_follows_the_weights():
    layer = torch.nn.Linear(1, 1, bias=False)
    average, expected = Average(layer, 0.9), layer.weight.item()
    for step in range(30):
        with torch.no_grad():
            layer.weight.add_(1.0)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.item()
    assert average.values["weight"].item() == pytest.approx(expected)


def test_a_run_exports_the_average_and_resumes_it_bit_by_bit(recipe, synthetic_loader, tmp_path):
    averaged = replace(recipe, optimiser=replace(recipe.optimiser, average=0.99))

    def run(name, until=None):
        trainer = Trainer(averaged, synthetic_loader(), tmp_path / name, steps=6, progress=False)
        trainer.run(until)
        return trainer

    whole = run("whole")
    run("parts", 3)
    run("parts")
    one, other = (load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "parts"))
    for name, value in whole.average.values.items():
        assert torch.equal(one[name], value)
        assert torch.equal(other[name], value)
    own = dict(whole.model.named_parameters())
    assert any(not torch.equal(one[name], own[name]) for name in own)
    checkpoint = tmp_path / "whole/checkpoints/step-00000006/model.safetensors"
    last = load_model(checkpoint).state_dict()
    assert all(torch.equal(last[name], own[name]) for name in own)
    assert run_weights(tmp_path / "whole") == tmp_path / "whole/model.safetensors"
    run("begun", 3)
    assert run_weights(tmp_path / "begun") == tmp_path / "begun/checkpoints/step-00000003/model.safetensors"
    (tmp_path / "whole/model.safetensors").write_bytes(b"damaged")
    assert run_weights(tmp_path / "whole") == checkpoint


def test_the_rate_of_a_block_is_that_of_the_next_one_times_the_decay(recipe):
    model = recipe.build()
    rates = compute_layer_rates(model, 0.5)
    expected = {
        "encoder.embed.0.weight": 0.125,
        "encoder.stacks.0.blocks.0.mlp.up.weight": 0.25,
        "encoder.stacks.0.blocks.1.mlp.up.bias": 0.5,
        "encoder.stacks.0.norm.of.0.weight": 1.0,
        "decoder.stack.blocks.0.mlp.up.weight": 1.0,
        "decoder.mask_token": 1.0,
    }
    assert {name: rates[name] for name in expected} == expected
    optimiser = build_optimiser(model, OptimiserConfig(layer_decay=0.5))
    set_lr(optimiser, 0.1)
    name_of = {p: name for name, p in model.named_parameters()}
    found = {name_of[p]: group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert found == {name: pytest.approx(0.1 * rate) for name, rate in rates.items()}
    with pytest.raises(ValueError, match="a Linear has none"):
        compute_layer_rates(torch.nn.Linear(1, 1), 0.5)
    for wrong in ({"layer_decay": 0.0}, {"average": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            OptimiserConfig(**wrong)


def test_blocks_that_are_computed_again_have_the_same_gradients(recipe, batch):
    gradients, calls = [], []
    for again in (False, True):
        model = recipe.build(seed=1)
        set_dropout(model, DropoutConfig(hidden=0.5, path=0.3))
        for _, block in named_blocks(model):
            block.attention.register_forward_hook(lambda *_, again=again: calls.append(again))
        if again:
            recompute_blocks(model)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model(batch).loss().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert (calls.count(False), calls.count(True)) == (3, 6)
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, rtol=1e-5, atol=1e-8), name
    with pytest.raises(ValueError, match="no blocks to recompute"):
        recompute_blocks(torch.nn.Linear(1, 1))
