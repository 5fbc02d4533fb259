"""Attention and blocks."""

import pytest
import torch
import torch.nn.functional as F

from maskstream.train.nn import transformer
from maskstream.train.nn.transformer import Attention, Stack, TransformerBlock, attend, init_linear


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.fixture
def products(monkeypatch):
    """The shapes of which attention was computed by SDPA."""
    shapes, true = [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, *rest, **named: shapes.append(q.shape) or true(q, *rest, **named)
    )
    return shapes


@pytest.mark.parametrize("masked", [False, True])
def test_bf16_on_a_cpu_is_matrix_products_and_gives_the_same(products, masked):
    q, k, v = (drawn(2, 3, 17, 8, seed=n) for n in range(3))
    mask = drawn(2, 1, 1, 17, seed=4) > -1 if masked else None
    expected = attend(q, k, v, mask)
    assert len(products) == 1
    found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)
    assert len(products) == 1
    assert (found.double() - expected).abs().max() < 0.05


def test_long_sequences_keep_no_matrix(products, monkeypatch):
    monkeypatch.setattr(transformer, "MATMUL_TOKENS", 16)
    q = drawn(1, 1, 17, 8, dtype=torch.bfloat16)
    attend(q, q, q)
    assert len(products) == 1


def stack_of(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        stack = Stack(3, 24, 2, 2, **options).double()
        init_linear(stack)
        for parameter in stack.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return stack


@pytest.mark.parametrize("masked", [False, True])
def test_the_last_tokens_alone_are_those_of_the_whole_and_have_the_same_gradients(masked):
    stack, x = stack_of(), drawn(2, 11, 24)
    mask = torch.ones(11, 11, dtype=torch.bool).tril() if masked else None
    alone = stack(x, mask, last=4)
    alone.square().sum().backward()
    found = {name: p.grad for name, p in stack.named_parameters()}
    stack.zero_grad()
    whole = stack(x, mask)[:, -4:]
    whole.square().sum().backward()
    assert torch.allclose(alone, whole, rtol=0, atol=1e-12)
    for name, parameter in stack.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-9, atol=1e-11), name


def test_the_last_block_computes_no_other_tokens():
    seen = []
    stack = stack_of()
    stack.blocks[-1].mlp.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    stack(drawn(2, 11, 24), last=4)
    assert seen == [(2, 4, 24)]


def test_a_bias_for_key_would_change_nothing():
    x, layer = drawn(2, 9, 24), Attention(24, 3).double()
    q, k, v = layer.qkv(x).reshape(2, 9, 3, 3, 8).permute(2, 0, 3, 1, 4).unbind(0)
    assert torch.allclose(attend(q, k + drawn(8), v), attend(q, k, v), atol=1e-12)


def test_a_block_of_cross_attention_without_tokens_to_see_is_an_error():
    with pytest.raises(ValueError, match="seen"):
        TransformerBlock(24, 2, 2, cross=True)(torch.zeros(1, 3, 24))
