from dataclasses import replace

import pytest
import torch

from maskstream.train.models import MaskedAutoencoder, VideoAutoencoderConfig
from maskstream.train.nn.grid import build_interleaved_sinusoid


@pytest.fixture
def model(recipe):
    return recipe.build(seed=3)


def loss_of(model, batch):
    return model(batch).loss()


def test_predictions_depend_on_visible_tokens_and_on_no_other(model, noise):
    mask = noise.mask
    before = model.predict(noise.video, mask.visible, mask.target)
    shown = model.tokens.paint(noise.video, mask.visible, torch.zeros(*mask.visible.shape, 384))
    hidden = model.tokens.paint(noise.video, mask.target, torch.zeros(*mask.target.shape, 384))
    assert not torch.equal(hidden, noise.video)
    assert torch.equal(model.predict(hidden, mask.visible, mask.target), before)
    assert not torch.allclose(model.predict(shown, mask.visible, mask.target), before, atol=1e-3)


def test_the_order_of_the_targets_is_the_order_of_the_predictions(model, noise):
    mask = noise.mask
    order = torch.randperm(mask.target.shape[1], generator=torch.Generator().manual_seed(1))
    before = model.predict(noise.video, mask.visible, mask.target)
    assert torch.allclose(model.predict(noise.video, mask.visible, mask.target[:, order]), before[:, order], atol=1e-5)


def test_the_loss_is_the_weighted_mean_of_the_tokens_errors(model, noise):
    mask = noise.mask
    weight = torch.rand(mask.weight.shape, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    predicted = model.predict(noise.video, mask.visible, mask.target).double()
    cubes = model.tokens.split(noise.video)
    total = expected = 0.0
    for b in range(4):
        targets = model.tokens.targets(cubes[b : b + 1, mask.target[b]]).double()[0]
        for m in range(weight.shape[1]):
            expected += float(weight[b, m]) * (predicted[b, m] - targets[m]).square().mean().item()
            total += float(weight[b, m])
    loss = loss_of(model, replace(noise, mask=replace(mask, weight=weight))).item()
    assert loss == pytest.approx(expected / total, rel=1e-5)


def test_a_token_of_weight_zero_gives_no_gradient(model, noise):
    mask = noise.mask
    weight = torch.ones_like(mask.weight)
    weight[1:] = 0
    loss_of(model, replace(noise, mask=replace(mask, weight=weight))).backward()
    got = model.decoder.head[0].weight.grad.clone()
    model.zero_grad()
    alone = replace(noise, video=noise.video[:1], mask=replace(mask, weight=weight).rows(slice(1)))
    loss_of(model, alone).backward()
    assert torch.allclose(got, model.decoder.head[0].weight.grad, atol=1e-6)


def test_positions_are_the_sinusoids_of_the_transformer():
    table = build_interleaved_sinusoid(50, 16)
    for position in (0, 1, 49):
        for column in range(0, 16, 2):
            angle = torch.tensor(position / 10000 ** (column / 16), dtype=torch.float64)
            assert table[position, column] == pytest.approx(float(angle.sin()), abs=1e-6)
            assert table[position, column + 1] == pytest.approx(float(angle.cos()), abs=1e-6)


def test_there_is_a_bias_for_query_and_value_and_none_for_key(model):
    names = [name for name, _ in model.encoder.stacks[0].blocks[0].attention.named_parameters()]
    assert names == ["q_bias", "v_bias", "qkv.weight", "out.weight", "out.bias"]


def test_the_seed_alone_decides_the_weights_and_the_global_generator_is_left_alone(recipe):
    torch.manual_seed(11)
    first = torch.rand(3)
    torch.manual_seed(11)
    model = recipe.build(seed=3)
    assert torch.equal(torch.rand(3), first)
    again, other = recipe.build(seed=3), recipe.build(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.encoder.embed[0].weight, other.encoder.embed[0].weight)


@pytest.mark.slow
def test_it_compiles_to_one_graph(model, batch):
    expected = loss_of(model, batch)
    expected.backward()
    gradient = model.encoder.embed[0].weight.grad.clone()
    model.zero_grad()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    loss = loss_of(compiled, batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(model.encoder.embed[0].weight.grad, gradient, atol=1e-6)


def test_bf16_autocast_stays_near_float32(model, batch):
    expected = loss_of(model, batch).item()
    seen = []
    model.decoder.head[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch)
    assert seen == [torch.bfloat16]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=0.02)


def test_it_learns(model, batch):
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = loss_of(model, batch).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.7 < first


@pytest.mark.parametrize("wrong", [{"width": 30, "heads": 4}, {"decoder_width": 0}, {"depth": 0}, {"mlp_ratio": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        VideoAutoencoderConfig(**wrong)


def test_encode_gives_one_vector_a_visible_token(model, batch):
    assert isinstance(model, MaskedAutoencoder)
    assert model.encode(batch.video, batch.mask.visible).shape == (*batch.mask.visible.shape, 32)


def test_a_reconstruction_is_the_clip_with_predictions_in_place_of_the_targets(model, noise):
    made = model.reconstructed(noise)
    changed = (model.tokens.split(made.video) != model.tokens.split(noise.video)).any(dim=2)
    assert torch.equal(changed, noise.mask.masked)
    with pytest.raises(ValueError, match="pass mask= to the loader"):
        model.reconstructed(replace(noise, mask=None))


def test_targets_of_pixels_and_positions_on_the_grid_reach_the_model(recipe, noise):
    plain = recipe.model
    pixels = replace(plain, target="pixels", positions="grid").build(recipe.data.grids, seed=3)
    mask = noise.mask
    true = pixels.tokens.inputs(pixels.tokens.split(noise.video))[torch.arange(4)[:, None], mask.target]
    made = pixels.predict(noise.video, mask.visible, mask.target)
    assert loss_of(pixels, noise).item() == pytest.approx((made - true).square().mean().item(), rel=1e-5)
    other = replace(plain, target="pixels").build(recipe.data.grids, seed=3)
    assert not torch.allclose(other.predict(noise.video, mask.visible, mask.target), made, atol=1e-3)


@pytest.mark.parametrize("name", ["target", "positions"])
def test_unknown_targets_and_positions_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be .*, got 'other'"):
        VideoAutoencoderConfig(**{name: "other"})


@pytest.fixture
def of_mae_st(recipe):
    return replace(recipe.model, class_token=True, learnt=True, bridge_bias=True, target="frame").build(
        recipe.data.grids, seed=3
    )


def test_a_class_token_and_learnt_positions_take_part(of_mae_st, noise):
    model, mask = of_mae_st, noise.mask
    loss_of(model, noise).backward()
    learnt = ["encoder.class_token", "decoder.class_place", "decoder.bridge.bias"]
    learnt += [f"{part}.positions.{axis}" for part in ("encoder", "decoder") for axis in ("time", "space")]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in learnt:
        assert gradients[name].abs().sum() > 0, name
    seen = []
    model.encoder.stacks[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    assert model.encode(noise.video, mask.visible).shape == (*mask.visible.shape, 32)
    assert seen == [mask.visible.shape[1] + 1]


def test_the_order_of_visible_tokens_changes_nothing(of_mae_st, noise):
    mask = noise.mask
    order = torch.randperm(mask.visible.shape[1], generator=torch.Generator().manual_seed(1))
    before = of_mae_st.predict(noise.video, mask.visible, mask.target)
    after = of_mae_st.predict(noise.video, mask.visible[:, order], mask.target)
    assert torch.allclose(before, after, atol=1e-5)


def test_a_class_token_lies_in_no_window():
    with pytest.raises(ValueError, match="leave one out"):
        VideoAutoencoderConfig(decoder_window=(4, 4), class_token=True)
