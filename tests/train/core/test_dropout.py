"""What a model drops in training: where, how much, and never elsewhere."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maskstream.train.core.dropout import DropoutConfig, Dropping, ResidualBlock, set_dropout
from maskstream.train.nn.token_layers import DocumentAttention, Documents
from maskstream.train.nn.token_model import TokenModelConfig
from maskstream.train.nn.transformer import MLP, Attention, Stack
from maskstream.train.papers.roar.model import RobertaClassifierConfig
from maskstream.train.recipes import chosen_recipe

from ..test_every_recipe import CUTS


def drop(model, **rates):
    set_dropout(model, DropoutConfig(**rates))
    return model


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_values_are_dropped_at_the_rate_and_the_others_grow():
    block, zeros, ones = drop(ResidualBlock(), hidden=0.25), torch.zeros(1, 100_000), torch.ones(1, 100_000)
    made = block.joined(zeros, ones)
    assert made.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (made == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert block.eval().joined(zeros, ones) is not made
    assert torch.equal(block.joined(zeros, ones), ones)


def test_a_path_is_dropped_for_whole_samples_and_rises_from_block_to_block():
    stack = drop(Stack(5, 8, 2, 2), path=0.4)
    assert [block.path_rate.item() for block in stack.blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert set(stack.state_dict()) == set(Stack(5, 8, 2, 2).state_dict())
    block = stack.blocks[4]
    made = block.joined(torch.zeros(4000, 2, 3), torch.ones(4000, 2, 3)).flatten(1)
    assert (made == made[:, :1]).all()
    assert made.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (made[:, 0] == 0).float().mean() == pytest.approx(0.4, abs=0.03)
    assert torch.equal(stack.blocks[0].joined(torch.zeros(9, 1), torch.ones(9, 1)), torch.ones(9, 1))
    assert torch.equal(block.eval().joined(torch.zeros(9, 1), torch.ones(9, 1)), torch.ones(9, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_attention_are_dropped(dtype):
    def made(module):
        with torch.no_grad():
            module.qkv.weight.zero_()
            module.qkv.weight[16:].copy_(torch.eye(8))  # even weights, of values that are the inputs
            module.out.weight.copy_(torch.eye(8))
            module.out.bias.zero_()
        return drop(module.to(dtype), attention=0.5)

    x = torch.ones(1, 64, 8, dtype=dtype)
    seen = made(Attention(8, 2))(x)[0]
    counts = (seen * 32).float().detach()  # of 64 weights of 1/64, each kept one is 1/32
    assert torch.equal(counts, counts.round())
    assert counts.mean() == pytest.approx(32, abs=2)
    assert counts.unique().numel() > 4
    edges = torch.tensor([0, 32, 64], dtype=torch.int32)
    places = torch.arange(64) % 32
    documents = Documents.of(edges, 32, places, positions="learned", heads=2, channels=4)
    layer = made(DocumentAttention(8, 2))
    layer.qkv.bias.data.zero_()
    counts = (layer(x[0], documents) * 16).float().detach()
    assert torch.equal(counts, counts.round())
    assert counts.mean() == pytest.approx(16, abs=2)
    torch.manual_seed(1)
    q = torch.randn(64, 2, 4)
    ways = [documents.attention(q, q, q), documents.padded(q, q, q)]
    assert torch.allclose(*ways, atol=1e-6)


def test_the_inner_values_of_a_feed_forward_part_are_dropped():
    layer = drop(MLP(4, 2), inner=0.5)
    x = torch.randn(3, 4)
    state = torch.random.get_rng_state()
    made = layer(x)
    torch.random.set_rng_state(state)
    assert torch.equal(made, layer.down(F.dropout(F.gelu(layer.up(x)), 0.5)))
    assert torch.equal(layer.eval()(x), layer.down(F.gelu(layer.up(x))))


@pytest.mark.parametrize(
    "name",
    [
        "retromae-base",
        "mage-base",
        "cropmae-small",
        "m3ae-base",
        "mpm",
        "pointmae-small",
        "roar-roberta-base",
    ],
)
def test_base_recipes_drop_what_their_papers_do(name):
    recipe = chosen_recipe(name, CUTS[name.partition("-")[0]])
    model = recipe.build()
    assert model.training
    config = recipe.model.dropout
    found = {path: one for path, one in model.named_modules() if isinstance(one, Dropping)}
    inside = {path for path in found if not config.only or any(path.startswith(one) for one in config.only)}
    assert inside
    for path, one in found.items():
        assert one.rate == (getattr(config, one.drops) if path in inside else 0.0), path
    plain = replace(recipe, model=replace(recipe.model, dropout=DropoutConfig())).build()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    assert not any(one.rate for one in plain.modules() if isinstance(one, Dropping))


def test_a_rate_without_effect_is_refused():
    grids = chosen_recipe("roar-lstm-tiny", CUTS["roar"]).data.grids
    sizes = {"vocabulary": 8, "width": 8, "depth": 1, "heads": 2}
    with pytest.raises(ValueError, match=r"uses dropout\.path"):
        TokenModelConfig(**sizes, dropout=DropoutConfig(path=0.1)).build(grids)
    with pytest.raises(ValueError, match="'decoder'"):
        RobertaClassifierConfig(**sizes, dropout=DropoutConfig(only=("decoder",))).build(grids)
    with pytest.raises(ValueError, match="of at least 0 and below 1"):
        DropoutConfig(hidden=1.0)
