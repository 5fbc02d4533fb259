"""Attention within documents, against attention to each of them alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maskstream.train.nn.token_layers import Documents, build_distance_penalty, rotate, rotations

LENGTHS = (5, 1, 9)
HEADS, CHANNELS = 4, 6


@pytest.fixture
def qkv():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(3, sum(LENGTHS), HEADS, CHANNELS, dtype=torch.float64, generator=rng)


def documents(positions):
    edges = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    places = torch.cat([torch.arange(n) for n in LENGTHS])
    return Documents.of(edges, max(LENGTHS), places, positions=positions, heads=HEADS, channels=CHANNELS), places


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
def test_attention_is_that_of_one_mask_over_all_documents(qkv, positions):
    own, places = documents(positions)
    number = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    bias = torch.zeros(HEADS, len(number), len(number), dtype=torch.float64)
    if positions == "alibi":
        slopes = torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256], dtype=torch.float64)
        bias = -slopes[:, None, None] * (places[:, None] - places).abs()
    bias = bias.masked_fill(number[:, None] != number, -torch.inf)
    q, k, v = qkv
    if positions == "rotary":
        q, k = (rotate(x, *rotations(places, CHANNELS)) for x in (q, k))
    padded = own.padded(q, k, v)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)[0].transpose(0, 1)
    assert torch.allclose(own.attention(*qkv), expected, atol=1e-12)
    assert torch.allclose(padded, expected, atol=1e-12)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_attention_within_a_window_is_that_of_a_band(window):
    lengths = (3, 1, 14, 2 * window + 1)
    edges = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    places = torch.cat([torch.arange(n) for n in lengths])
    own = replace(
        Documents.of(edges, max(lengths), places, positions="learned", heads=HEADS, channels=CHANNELS), window=window
    )
    rng = torch.Generator().manual_seed(1)
    qkv = torch.randn(3, sum(lengths), HEADS, CHANNELS, dtype=torch.float64, generator=rng).requires_grad_()
    number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    near = (number[:, None] == number) & ((places[:, None] - places).abs() <= window)
    q, k, v = (x.transpose(0, 1)[None] for x in qkv)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=near)[0].transpose(0, 1)
    wanted = torch.randn(expected.shape, dtype=torch.float64, generator=rng)
    (gradient,) = torch.autograd.grad(expected, qkv, wanted)
    for made in (own.attention(*qkv), own.padded(*qkv)):
        assert torch.allclose(made, expected, atol=1e-12)
        assert torch.allclose(torch.autograd.grad(made, qkv, wanted)[0], gradient, atol=1e-12)
    asked = torch.tensor([1, 3, 4, 9, 17, 19])
    some = own.attention(qkv[0][asked], qkv[1], qkv[2], own.asking(asked))
    assert torch.allclose(some, expected[asked], atol=1e-12)


def test_rotary_logits_depend_on_distances_alone(qkv):
    q, k = qkv[0, :1].expand(8, -1, -1), qkv[1, :1].expand(8, -1, -1)
    turns = rotations(torch.arange(8), CHANNELS)
    logits = torch.einsum("ihd,jhd->hij", rotate(q, *turns), rotate(k, *turns))
    assert torch.allclose(logits[:, 1:, 1:], logits[:, :-1, :-1], atol=1e-6)
    assert not torch.allclose(logits[:, 0, 1], logits[:, 0, 0], atol=1e-2)


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [(2, [1 / 16, 1 / 256]), (3, [1 / 16, 1 / 256, 1 / 4]), (6, [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8])],
)
def test_slopes_are_those_of_alibi(heads, slopes):
    assert build_distance_penalty(heads, 3, torch.device("cpu"))[:, 0, 2].tolist() == pytest.approx(
        [-2 * s for s in slopes]
    )
