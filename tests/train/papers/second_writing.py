"""A second writing of what papers share, in float64: attention, blocks, MAE's encoder and decoder, of one sample each.

It shares weights with the models, and none of their code but what cuts pictures into patches.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid

GRIDS = {"image": compute_image_grid(32, 8)}
SIZES = {"width": 32, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}


def random_weights(model: nn.Module) -> nn.Module:
    """The model in float64, with no weight, bias or token at a value where it would have no effect."""
    generator = torch.Generator().manual_seed(7)
    for parameter in model.double().parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.requires_grad_(False)


def pictures(n: int, ratio: float) -> ImageBatch:
    image = torch.randint(0, 256, (n, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mask = Random(ratio=ratio).draw(GRIDS["image"], [np.random.default_rng(i) for i in range(n)])
    return ImageBatch(image=image, mask=mask, label=torch.full((n,), -1), key=[str(i) for i in range(n)])


def check_parity(model: nn.Module, made: Tensor, written: Tensor, most: float = 1e-10) -> None:
    """Fails unless a model's loss and all its gradients are those of a second writing, in float64."""
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    ours, theirs = (torch.autograd.grad(loss, list(named.values()), materialize_grads=True) for loss in (made, written))
    assert abs(made.item() - written.item()) <= most * abs(written.item())
    for name, one, other in zip(named, ours, theirs, strict=True):
        assert float((one - other).norm()) <= most * max(float(other.norm()), most), name
    assert any(float(one.norm()) > 0 for one in ours)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    if isinstance(norm, nn.Identity):
        return x
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.erf(x / 2**0.5))


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def heads_of(q: Tensor, k: Tensor, v: Tensor, heads: int, added: Tensor | float = 0.0) -> Tensor:
    """One sample: queries (L, D), keys and values (S, D); `added` to the scores (heads, L, S)."""
    found, added = [], torch.as_tensor(added).expand(heads, len(q), len(k))
    for head, (a, b, c) in enumerate(zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True)):
        shares = (a @ b.T / math.sqrt(a.shape[1]) + added[head]).exp()
        found.append(shares / shares.sum(1, keepdim=True) @ c)
    return torch.cat(found, dim=1)


def attention(x: Tensor, layer: nn.Module) -> Tensor:
    """ViT's self-attention of one sample (L, D); a bias for key changes nothing."""
    q, k, v = (x @ layer.qkv.weight.T).chunk(3, dim=1)
    return linear(heads_of(q + layer.q_bias, k, v + layer.v_bias, layer.heads), layer.out)


def mlp(x: Tensor, layer: nn.Module) -> Tensor:
    x = linear(x, layer.up)
    return linear(x / (1 + (-1.702 * x).exp()) if getattr(layer, "quick", False) else gelu(x), layer.down)


def block(x: Tensor, layer: nn.Module, kind: int = 0) -> Tensor:
    if layer.post:
        x = normed(x + attention(x, layer.attention), layer.norm1.of[kind])
        return normed(x + mlp(x, layer.mlp), layer.norm2.of[kind])
    x = x + attention(normed(x, layer.norm1.of[kind]), layer.attention)
    return x + mlp(normed(x, layer.norm2.of[kind]), layer.mlp)


def stacked(x: Tensor, stack: nn.Module, kind: int = 0) -> Tensor:
    for layer in stack.blocks:
        x = block(x, layer, kind)
    return normed(x, stack.norm.of[kind])


def cross(x: Tensor, seen: Tensor, layer: nn.Module) -> Tensor:
    """Attention of one sample's tokens (L, D) to other ones (S, D), which are normed where the layer has a norm."""
    k, v = linear(normed(seen, layer.norm), layer.key_value).chunk(2, dim=1)
    return linear(heads_of(linear(x, layer.query), k, v, layer.heads), layer.out)


def encoded(model: nn.Module, image: Tensor, visible: Tensor, blocks: int | None = None) -> Tensor:
    """ViT's encoder over the patches `visible` of a picture; after all blocks and the norm, or after some blocks."""
    inputs = model.tokens.inputs(model.tokens.split(image[None]))[0, visible].double()
    x = linear(inputs, model.encoder.embed[0]) + model.tokens.positions(model.config.width)[visible]
    if model.encoder.class_token is not None:
        x = torch.cat((model.encoder.class_token[None], x))
    (stack,) = model.encoder.stacks
    if blocks is None:
        return stacked(x, stack)
    for layer in stack.blocks[:blocks]:
        x = block(x, layer)
    return x


def decoded(seen: Tensor, decoder: nn.Module, place: Tensor, visible: Tensor, target: Tensor) -> Tensor:
    """MAE's decoder over one sample's encoded tokens (1 + V or V, D) and mask tokens: its predictions of targets."""
    x = linear(seen, decoder.bridge)
    whole, known = x[: len(x) - len(visible)], x[len(x) - len(visible) :]
    if decoder.own_class:
        whole = decoder.class_place[None]
    elif decoder.class_place is not None:
        whole = whole + decoder.class_place
    x = stacked(torch.cat((whole, known + place[visible], decoder.mask_token + place[target])), decoder.stack)
    return linear(x[-len(target) :], decoder.head[0])


def whitened(values: Tensor) -> Tensor:
    """Tokens (M, values) with mean 0 and variance 1, by the unbiased variance and 1e-6."""
    centred = values - values.mean(1, keepdim=True)
    return centred / (centred.square().sum(1, keepdim=True) / (values.shape[1] - 1) + 1e-6).sqrt()


def nats(logits: Tensor, label: Tensor) -> Tensor:
    return logits.exp().sum(-1).log() - logits.gather(-1, label.long()[..., None])[..., 0]


def words(x: Tensor, head: nn.Module, table: Tensor) -> Tensor:
    """BERT's head: logits of ids."""
    return normed(gelu(linear(x, head.dense)), head.norm) @ table.T + head.bias
