"""The transformer that all models use: attention, blocks, stacks of blocks, and their initial weights.

Shapes: L query tokens and S key tokens of D channels.

Attention is torch's `scaled_dot_product_attention`, and for bf16 on a CPU two matrix products, which are faster there.
Only the requested tokens leave a stack (`last`), so its last block computes no others. A block has norms per kind of
token (AVSiam) and cross-attention (DiffMAViL). The voxel diffusion's block, with conditioned norms and windows, has its
own forward over the same `Attention` and `MLP`. The weights for a seed depend on the order in which layers are created.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.train.core.dropout import Dropping, ResidualBlock

MATMUL_TOKENS = 2048
"""Maximum number of keys for which bf16 attention on a CPU computes its whole matrix; beyond it, memory becomes the
limit.
"""
INIT_STD, INIT_WIDTH = 0.02, 768
"""The standard deviation of the initial weights of linear layers and tables of a model of this width, as in BERT."""
NormAt = Literal["pre", "post"]
"""Position of the layer norm of a residual branch: before it, or after the sum, as in BERT."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v.

    The result equals scaled_dot_product_attention, which is faster on CUDA devices and for float32. For bf16 on a CPU,
    two matrix products are faster: 1.2 times for 1,568 tokens, 2 times for 200 (one thread, forward and backward,
    `benchmarks/trainer.py`).

    Args:
        q: Queries (..., L, d).
        k: Keys (..., S, d).
        v: Values (..., S, d).
        mask: bool, True where attention is allowed.
        dropout: Dropout rate of attention weights.

    Returns:
        (..., L, d).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= MATMUL_TOKENS:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        return (F.dropout(weights, dropout) if dropout else weights) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


@dataclass(frozen=True, slots=True)
class RaggedRows:
    """Rows of different lengths as one list of T tokens; padded to the longest they are B rows of W positions.

    Attributes:
        at: Index of each token in the flattened original rows, int64 (T,).
        slot: Index of each token in the flattened B * W positions, int64 (T,).
        valid: Mask of keys, bool (B, 1, 1, W); None if all rows have the same length.
        shape: (B, W).
    """

    at: Tensor
    slot: Tensor
    valid: Tensor | None
    shape: tuple[int, int]

    @classmethod
    def of(cls, valid: Tensor) -> "RaggedRows":
        """Create the rows of the tokens that are `valid` bool (B, L), in order. It waits for the device."""
        counts = valid.sum(dim=1)
        longest = int(counts.max())
        real = torch.arange(longest, device=valid.device) < counts[:, None]
        at, slot = (one.flatten().nonzero()[:, 0] for one in (valid, real))
        padded = len(slot) < real.numel()
        return cls(at, slot, real[:, None, None] if padded else None, (len(valid), longest))

    def listed(self, x: Tensor) -> Tensor:
        """Return the tokens (T, ...) of original rows (B, L, ...)."""
        return x.flatten(0, 1).index_select(0, self.at)

    def rows(self, x: Tensor) -> Tensor:
        """Return the rows (B, W, ...) of tokens (T, ...), padded with 0."""
        if self.valid is None:
            return x.reshape(*self.shape, *x.shape[1:])
        batch, longest = self.shape
        rows = x.new_zeros(batch * longest, *x.shape[1:]).index_copy(0, self.slot, x)
        return rows.view(batch, longest, *x.shape[1:])

    def padded(self, x: Tensor, length: int) -> Tensor:
        """Return the original rows (B, length, ...) of tokens (T, ...), with 0 for tokens that are not listed.

        Args:
            x: The listed tokens.
            length: Length of a row.
        """
        rows = x.new_zeros(self.shape[0] * length, *x.shape[1:]).index_copy(0, self.at, x)
        return rows.view(-1, length, *x.shape[1:])

    def of_rows(self, x: Tensor) -> Tensor:
        """Return the tokens (T, ...) of rows (B, W, ...)."""
        return x.flatten(0, 1) if self.valid is None else x.flatten(0, 1).index_select(0, self.slot)


class Attention(Dropping):
    """Self-attention over tokens (..., L, D), with a bias for query and value and none for key.

    A key bias would add the same value to all scores of a query, which does not change the softmax.
    """

    drops = "attention"

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, last: int | None = None, rows: RaggedRows | None = None
    ) -> Tensor:
        """Compute self-attention.

        Args:
            x: Tokens (..., L, D), or (T, D) with `rows`.
            mask: Attention mask; see `attend`.
            last: If given, only the last `last` tokens are queries and are returned.
            rows: Rows of the tokens, without `mask` and `last`.
        """
        if rows is not None or last is None or last == x.shape[-2]:
            bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
            made = F.linear(x, self.qkv.weight, bias)
            q, k, v = self._split_heads(made if rows is None else rows.rows(made), 3).unbind(0)
        else:
            width = len(self.q_bias)
            of_query, of_rest = torch.split(self.qkv.weight, [width, 2 * width])
            (q,) = self._split_heads(F.linear(x[..., -last:, :], of_query, self.q_bias), 1).unbind(0)
            bias = torch.cat((torch.zeros_like(self.v_bias), self.v_bias))
            k, v = self._split_heads(F.linear(x, of_rest, bias), 2).unbind(0)
        mask = _select_last_rows(mask, last) if rows is None else rows.valid
        seen = attend(q, k, v, mask, self.rate_now).transpose(-3, -2).flatten(-2)
        return cast(Tensor, self.out(seen if rows is None else rows.of_rows(seen)))

    def _split_heads(self, x: Tensor, parts: int) -> Tensor:
        """Split (..., L, parts * D) into (parts, ..., heads, L, d)."""
        return x.reshape(*x.shape[:-1], parts, self.heads, -1).movedim(-3, 0).transpose(-3, -2)


Turns = tuple[Tensor, Tensor]
"""Cosines and sines that rotate the channels of queries and keys, (..., L, d) each; the sine of the first channel of a
plane is negative.
"""


class RotaryAttention(Dropping):
    """Self-attention over tokens (..., L, D) whose queries and keys are rotated by their positions, with all biases."""

    drops = "attention"

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        turns: Turns,
        *,
        last: int | None = None,
        rows: RaggedRows | None = None,
    ) -> Tensor:
        """Compute self-attention with rotary positions; see `Attention`.

        Args:
            x: Tokens (..., L, D), or (T, D) with `rows`.
            mask: Attention mask; see `attend`.
            turns: Cosines and sines of the rows.
            last: If given, only the last `last` tokens are queries and are returned.
            rows: Rows of the tokens.
        """
        made = self.qkv(x)
        if rows is not None:
            made, mask = rows.rows(made), rows.valid
        split = made.reshape(*made.shape[:-1], 3, self.heads, -1).movedim(-3, 0).transpose(-3, -2)
        (q, k), v = _rotate_channels(split[:2], turns), split[2]
        q, mask = (q, mask) if last is None else (q[..., -last:, :], _select_last_rows(mask, last))
        seen = attend(q, k, v, mask, self.rate_now).transpose(-3, -2).flatten(-2)
        return cast(Tensor, self.out(seen if rows is None else rows.of_rows(seen)))


def _rotate_channels(x: Tensor, turns: Turns) -> Tensor:
    """Rotate channels 2i and 2i + 1 of x (..., L, d) in their plane; the sines of channels 2i are negative."""
    cos, sin = (one.to(x.dtype) for one in turns)
    return x * cos + x.reshape(*x.shape[:-1], -1, 2).flip(-1).flatten(-2) * sin


def _select_last_rows(mask: Tensor | None, last: int | None) -> Tensor | None:
    """Return the rows of a mask (..., L, S) for the last queries; a single row for all queries is unchanged."""
    return mask if mask is None or last is None or mask.shape[-2] == 1 else mask[..., -last:, :]


class CrossAttention(Dropping):
    """Cross-attention: tokens (B, L, D) attend to other tokens (B, S, D), which pass through a layer norm first; none
    without `eps`.
    """

    drops = "attention"

    def __init__(self, width: int, heads: int, eps: float | None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.Identity() if eps is None else nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from tokens x to tokens `seen`.

        Args:
            x: Queries (B, L, D).
            seen: Tokens to attend to (B, S, D).
            mask: Attention mask; see `attend`.
        """
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.norm(seen)).unflatten(-1, (2, self.heads, -1)).movedim(2, 0).transpose(2, 3)
        return cast(Tensor, self.out(attend(q, k, v, mask, self.rate_now).transpose(1, 2).flatten(2)))


class MLP(Dropping):
    """The feed-forward part of a block (..., L, D): two linear layers with a GELU in between; with `quick`, CLIP's x
    sigmoid(1.702 x).
    """

    drops = "inner"
    quick: bool = False

    def __init__(self, width: int, mlp_ratio: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        x = x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x)
        return cast(Tensor, self.down(self.dropped(x)))


class TransformerBlock(ResidualBlock):
    """A transformer block (..., L, D): attention and an MLP, each with a residual connection.

    Args:
        width: Number of channels.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of the MLP per channel.
        eps: Epsilon of the layer norms.
        kinds: Number of token kinds; each has separate layer norms, all other weights are shared.
        cross: Whether to use CrossAttention to the tokens `seen` instead of self-attention.
        post: Whether norms come after the sums; only for self-attention over all tokens.
        rotary: Whether to use RotaryAttention.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: int,
        eps: float = 1e-6,
        *,
        kinds: int = 1,
        cross: bool = False,
        post: bool = False,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.post = post
        self.norm1 = Norms(width, eps, kinds)
        self.attention: Attention | CrossAttention | RotaryAttention
        if cross:
            self.attention = CrossAttention(width, heads, eps)
        else:
            self.attention = (RotaryAttention if rotary else Attention)(width, heads)
        self.norm2 = Norms(width, eps, kinds)
        self.mlp = MLP(width, mlp_ratio)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        kind: int = 0,
        seen: Tensor | None = None,
        last: int | None = None,
        turns: Turns | None = None,
        rows: RaggedRows | None = None,
    ) -> Tensor:
        """Run the block.

        Args:
            x: Tokens (..., L, D), or (T, D) with `rows`.
            mask: Attention mask; see `attend`.
            kind: Kind of the tokens, which selects the norms.
            seen: Tokens that cross-attention attends to.
            last: If given, only the last `last` tokens, which attend to all, are computed and returned.
            turns: Rotary positions.
            rows: Rows of the tokens, for self-attention.
        """
        if self.post:
            x = self.norm1(self.joined(x, self.attention(x, mask)), kind)
            return cast(Tensor, self.norm2(self.joined(x, self.mlp(x)), kind))
        normed = self.norm1(x, kind)
        if isinstance(self.attention, CrossAttention):
            if seen is None:
                raise ValueError("a cross-attention block needs the tokens `seen`, got none")
            x = self.joined(x, self.attention(normed, seen))
        elif isinstance(self.attention, RotaryAttention):
            if turns is None:
                raise ValueError("a rotary attention block needs the rotations of its tokens, got none")
            own = x if last is None else x[..., -last:, :]
            x = self.joined(own, self.attention(normed, mask, turns, last=last, rows=rows))
        else:
            own = x if last is None else x[..., -last:, :]
            x = self.joined(own, self.attention(normed, mask, last=last, rows=rows))
        return self.joined(x, self.mlp(self.norm2(x, kind)))


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """Number of blocks, and the sizes of each except its width.

    Attributes:
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of the layer norms.
    """

    depth: int
    heads: int
    mlp_ratio: int
    eps: float


class Norms(nn.Module):
    """A layer norm for each kind of token; none without `eps`."""

    def __init__(self, width: int, eps: float | None, kinds: int = 1) -> None:
        super().__init__()
        self.of = nn.ModuleList(nn.Identity() if eps is None else nn.LayerNorm(width, eps=eps) for _ in range(kinds))

    def forward(self, x: Tensor, kind: int = 0) -> Tensor:
        return cast(Tensor, self.of[kind](x))


class Stack(nn.Module):
    """Blocks in sequence and a final layer norm.

    Args:
        depth: Number of blocks.
        width: Number of channels.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of the blocks' layer norms.
        norm_eps: Epsilon of the final norm; defaults to `eps`.
        kinds: Number of token kinds.
        cross: Whether blocks use cross-attention.
        post: Whether norms come after the sums of the blocks, with none at the end.
        rotary: Whether blocks use rotary attention.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        mlp_ratio: int,
        eps: float = 1e-6,
        *,
        norm_eps: float | None = None,
        kinds: int = 1,
        cross: bool = False,
        post: bool = False,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, mlp_ratio, eps, kinds=kinds, cross=cross, post=post, rotary=rotary)
            for _ in range(depth)
        )
        self.norm = Norms(width, None if post else eps if norm_eps is None else norm_eps, kinds)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        kind: int = 0,
        seen: Tensor | None = None,
        last: int | None = None,
        place: Tensor | None = None,
        turns: Turns | None = None,
        rows: RaggedRows | None = None,
    ) -> Tensor:
        """Run all blocks and the final norm.

        Args:
            x: Tokens (B, L, D), or (T, D) with `rows`.
            mask: Attention mask; see `attend`.
            kind: Kind of the tokens, which selects the norms.
            seen: Tokens that cross-attention attends to.
            last: If given, only the last `last` tokens (B, last, D) are returned; the last block computes no others.
            place: Position vectors, added before each block.
            turns: Rotary positions.
            rows: Rows of the tokens.
        """
        for i, block in enumerate(self.blocks):
            only = last if i + 1 == len(self.blocks) else None
            x = block(x if place is None else x + place, mask, kind=kind, seen=seen, last=only, turns=turns, rows=rows)
        return cast(Tensor, self.norm(x if last is None else x[:, -last:], kind))


class CoAttention(ResidualBlock):
    """A block of one stream (B, S, D): self-attention, attention to another stream, and an MLP.

    Args:
        width: Number of channels.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of the MLP per channel.
        eps: Epsilon of the layer norms.
        post: Whether norms come after the sums; the other stream is then not normalised again.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float, *, post: bool = False) -> None:
        super().__init__()
        self.post = post
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.cross = CrossAttention(width, heads, None if post else eps)
        self.norm3 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, mlp_ratio)

    def forward(self, x: Tensor, other: Tensor, own: Tensor | None = None, others: Tensor | None = None) -> Tensor:
        """Run the block.

        Args:
            x: The stream (B, S, D).
            other: The other stream.
            own: Attention mask of the stream, bool (B, 1, 1, S); needed if it has padding.
            others: Attention mask of the other stream.
        """
        if self.post:
            x = self.norm1(self.joined(x, self.attention(x, own)))
            x = self.norm2(self.joined(x, self.cross(x, other, others)))
            return cast(Tensor, self.norm3(self.joined(x, self.mlp(x))))
        x = self.joined(x, self.attention(self.norm1(x), own))
        x = self.joined(x, self.cross(self.norm2(x), other, others))
        return self.joined(x, self.mlp(self.norm3(x)))


class FusionBlock(nn.Module):
    """A block for each of two streams; both read the other stream's state from before the block (METER, Dou et al.,
    2022).
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float, *, post: bool = False) -> None:
        super().__init__()
        self.image = CoAttention(width, heads, mlp_ratio, eps, post=post)
        self.text = CoAttention(width, heads, mlp_ratio, eps, post=post)

    def forward(self, image: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Run both blocks.

        Args:
            image: Tokens of the image (B, V, D).
            text: Tokens of the text (B, L, D).
            valid: Attention mask of the text, bool (B, 1, 1, L).
        """
        return self.image(image, text, None, valid), self.text(text, image, valid, None)


def init_normal(model: nn.Module, width: int = INIT_WIDTH) -> None:
    """Initialise linear layers and embedding tables with normal weights and zero biases, as BERT does at width 768.

    The standard deviation is proportional to 1 / sqrt(width), so that sums over channels start with the same scale at
    any width. With BERT's 0.02, attention in narrow models starts almost uniform over all tokens, and is slow to focus
    on neighbours.

    Args:
        model: The model.
        width: Number of channels.
    """
    std = INIT_STD * (INIT_WIDTH / width) ** 0.5
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def init_tables(model: nn.Module) -> None:
    """Initialise all embedding tables of a model with BERT's initial weights."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=INIT_STD)


def init_linear(model: nn.Module) -> None:
    """Initialise every linear layer of a model with Xavier-uniform weights and zero biases, as masked autoencoders
    do.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
