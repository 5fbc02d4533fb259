"""ModernBERT: a masked language model in which most layers see at most 64 tokens on each side.

Every third layer, including the first, attends to the whole document, and all others to the 64 tokens on each side, so
the cost of long documents grows little faster than their length. Positions are rotations, slower ones in global layers.
Norms come before the layers, except the first attention, whose input was just normalised. Layers and norms have no
biases, except the head, which has one for each id. Source: ModernBERT (Warner et al., 2024, section 2.1).

Weights of `transformers.ModernBertForMaskedLM` have other names, and the same numbers in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from maskstream.shards.limits import Bounds, PositiveInt
from maskstream.train.core.model import Grids
from maskstream.train.nn.token_layers import Documents, Positions, TokenBlock, rotations
from maskstream.train.nn.token_model import TokenModel, TokenModelConfig
from maskstream.train.nn.transformer import NormAt

ROOT = {
    "embed.ids.weight": "model.embeddings.tok_embeddings.weight",
    "embed.norm.weight": "model.embeddings.norm.weight",
    "last.weight": "model.final_norm.weight",
    "head.dense.weight": "head.dense.weight",
    "head.norm.weight": "head.norm.weight",
    "head.bias": "decoder.bias",
}
BLOCK = {
    "attention.qkv": "attn.Wqkv",
    "attention.out": "attn.Wo",
    "norm1": "attn_norm",
    "mlp.up": "mlp.Wi",
    "mlp.down": "mlp.Wo",
    "norm2": "mlp_norm",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModernModelConfig(TokenModelConfig):
    """The sizes of a ModernBERT, by default the paper's base model.

    Attributes:
        vocabulary: Number of token ids.
        depth: Number of blocks.
        positions: Kind of positions.
        norm: Location of layer norms.
        gated: Whether to use gated feed-forward layers.
        eps: Epsilon of all layer norms.
        hidden: Hidden channels of a feed-forward part, instead of `mlp_ratio`.
        window: Number of tokens that a local layer sees, half of them on each side.
        every: Distance between global layers, beginning with the first layer.
        theta: Base of the rotation frequencies of global layers.
        local_theta: Base of the rotation frequencies of local layers.
    """

    bias: ClassVar[bool] = False

    vocabulary: PositiveInt = 50368
    depth: PositiveInt = 22
    positions: Positions = "rotary"
    norm: NormAt = "pre"
    gated: bool = True
    eps: float = 1e-5
    hidden: PositiveInt = 1152
    window: Annotated[int, Bounds(min=2, multiple=2)] = 128
    every: PositiveInt = 3
    theta: Annotated[float, Bounds(above=1)] = 160_000.0
    local_theta: Annotated[float, Bounds(above=1)] = 10_000.0

    def validate(self) -> None:
        TokenModelConfig.validate(self)
        if self.positions != "rotary" or self.norm != "pre":
            raise ValueError(
                f"ModernBERT needs positions='rotary' and norm='pre', got {self.positions!r} and {self.norm!r}"
            )

    @property
    def inner(self) -> int:
        """The channels between the layers of a feed-forward part."""
        return self.hidden


class ModernModel(TokenModel, config=ModernModelConfig):
    """A ModernBERT. Layers that add to the residual begin with weights divided by sqrt(2 depth), as Megatron's do."""

    config: ModernModelConfig

    def __init__(self, config: ModernModelConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        first = self.blocks[0]
        assert isinstance(first, TokenBlock)
        first.norm1 = nn.Identity()
        with torch.no_grad():
            for block in self.blocks:
                assert isinstance(block, TokenBlock)
                for layer in (block.attention.out, block.mlp.down):
                    layer.weight.mul_(1 / math.sqrt(2 * config.depth))

    def documents(self, edges: Tensor, longest: int, places: Tensor) -> Sequence[Documents]:
        """Return each block's view of the documents: whole documents in global layers, nearby tokens in local ones; see
        `TokenModel`.

        Args:
            edges: Boundaries of the documents, int32 (S + 1,).
            longest: Number of tokens of the longest document.
            places: Positions in the documents, int (T,).
        """
        c, dtype = self.config, self.embed.ids.weight.dtype
        exact = dtype if dtype == torch.float64 else torch.float32
        channels = c.width // c.heads
        plain = Documents.of(edges, longest, places, positions="learned", heads=c.heads, channels=channels)
        far = replace(plain, turns=rotations(places, channels, c.theta, exact))
        near = replace(plain, turns=rotations(places, channels, c.local_theta, exact), window=c.window // 2)
        return [near if number % c.every else far for number in range(c.depth)]

    def rename_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the weights of a transformers ModernBERT under this model's names; see `Model`."""
        if ROOT["embed.ids.weight"] not in weights:
            return weights
        ours = {name: weights[theirs] for name, theirs in ROOT.items() if theirs in weights}
        for i in range(self.config.depth):
            for part, name in BLOCK.items():
                if (theirs := f"model.layers.{i}.{name}.weight") in weights:
                    ours[f"blocks.{i}.{part}.weight"] = weights[theirs]
        return ours
