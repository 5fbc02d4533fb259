"""The masked autoencoder: tokenise, gather the visible tokens, encode, decode, compare with the targets.

One core for every kind of token: a `Tokens` module says how data is cut into tokens and what is predicted of a token,
the core does the rest. All shapes are static and all selections are gathers by index, so it compiles to one graph.

Shapes: B samples, N tokens, V of them visible, M of them predicted, D the encoder's width, E the decoder's width.

The architecture is VideoMAE's (Tong et al., 2022, section 3.4 and appendix): pre-norm blocks, fixed 1-D sinusoid
positions over the flattened tokens, no class token, a bias for query and value but none for key; the decoder reads the
visible tokens followed by mask tokens, without putting them back in order, and only the mask tokens are predicted.
VideoMAE V2 (Wang et al., 2023) is the same core with fewer mask tokens and a weight for each.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .window_decoder import WindowDecoder


class Tokens(Protocol):
    """What the core asks of a kind of token; a module, so that its buffers follow the model to its device.

    kind: its name in `export.KINDS`, which rebuilds it from config (a dataclass of plain values).
    """

    kind: str
    config: Any
    n_tokens: int
    n_inputs: int
    n_targets: int

    def split(self, data: Tensor) -> Tensor:
        """The data's tokens as stored, (B, N, ...)."""

    def inputs(self, tokens: Tensor) -> Tensor:
        """Tokens as the encoder reads them, float32 (B, V, n_inputs)."""

    def targets(self, tokens: Tensor) -> Tensor:
        """Tokens as the decoder predicts them, float32 (B, M, n_targets)."""


@runtime_checkable
class Placed(Protocol):
    """Tokens that lie in a `grid` of their own and have positions for it, instead of those along a line."""

    grid: tuple[int, ...]

    def positions(self, width: int) -> Tensor:
        """float32 (N, width)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """Sizes of the encoder and the decoder, and the epsilons of their layer norms.

    `decoder_window`: tokens of a window in time and frequency, for a decoder that attends only within windows
    (window_decoder.py); None for one that attends to everything.
    `eps` is the blocks' and the encoder's, `decoder_eps` that of the decoder's last norm. 1e-6 is the authors' value;
    transformers uses 1e-12 and 1e-5.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    decoder_width: int = 192
    decoder_depth: int = 4
    decoder_heads: int = 3
    mlp_ratio: int = 4
    eps: float = 1e-6
    decoder_eps: float = 1e-6
    decoder_window: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.decoder_window is not None:
            object.__setattr__(self, "decoder_window", tuple(self.decoder_window))
        for part, width, heads in (("", self.width, self.heads), ("decoder_", self.decoder_width, self.decoder_heads)):
            if width < 1 or heads < 1 or width % heads or width % 2:
                raise ValueError(
                    f"{part}width must be even and a multiple of {part}heads, got {part}width={width}, "
                    f"{part}heads={heads}"
                )
        if self.depth < 1 or self.decoder_depth < 1 or self.mlp_ratio < 1:
            raise ValueError(
                "depth, decoder_depth and mlp_ratio must be at least 1, "
                f"got {self.depth}, {self.decoder_depth}, {self.mlp_ratio}"
            )


def sinusoid_positions(n_tokens: int, width: int) -> Tensor:
    """Positions float32 (n_tokens, width): sine in even columns, cosine in odd ones (Vaswani et al., 2017, 3.5)."""
    rate = torch.pow(10000.0, -torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(n_tokens, dtype=torch.float64)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1).float()


class Attention(nn.Module):
    """Self-attention of (..., L, D) with a bias for query and value and none for key; a mask says who may attend."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.reshape(*x.shape[:-1], 3, self.heads, -1).movedim(-3, 0).transpose(-3, -2).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return cast(Tensor, self.out(seen.transpose(-3, -2).flatten(-2)))


class Block(nn.Module):
    """A pre-norm transformer block: attention and a GELU perceptron, each added to its input (..., L, D)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return cast(Tensor, x + self.down(F.gelu(self.up(self.norm2(x)))))


class MaskedAutoencoder(nn.Module):
    """A masked autoencoder over any `Tokens` module. `seed` alone decides the initial weights."""

    encoder_positions: Tensor
    decoder_positions: Tensor

    def __init__(self, config: AutoencoderConfig, tokens: Tokens, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.tokens = tokens
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(config, tokens)
        for part, width in (("encoder", config.width), ("decoder", config.decoder_width)):
            known = (
                tokens.positions(width) if isinstance(tokens, Placed) else sinusoid_positions(tokens.n_tokens, width)
            )
            self.register_buffer(f"{part}_positions", known, persistent=False)

    def _build(self, c: AutoencoderConfig, tokens: Tokens) -> None:
        self.embed = nn.Linear(tokens.n_inputs, c.width)
        self.encoder = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio, c.eps) for _ in range(c.depth))
        self.encoder_norm = nn.LayerNorm(c.width, eps=c.eps)
        self.bridge = nn.Linear(c.width, c.decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(c.decoder_width))
        blocks = [Block(c.decoder_width, c.decoder_heads, c.mlp_ratio, c.eps) for _ in range(c.decoder_depth)]
        self.decoder = nn.ModuleList(blocks) if c.decoder_window is None else self._windows(blocks, c.decoder_window)
        self.decoder_norm = nn.LayerNorm(c.decoder_width, eps=c.decoder_eps)
        self.head = nn.Linear(c.decoder_width, tokens.n_targets)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _windows(self, blocks: list[Block], window: tuple[int, int]) -> WindowDecoder:
        if not isinstance(self.tokens, Placed):
            raise ValueError(f"decoder_window={window} is for tokens in a grid of time and frequency; leave it out")
        return WindowDecoder(blocks, self.tokens.grid, window)

    def forward(self, data: Tensor, visible: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The loss, a float32 scalar: sum(weight * error) / sum(weight), a token's error being its mean squared error.

        data: what the tokens module takes, such as uint8 (B, T, H, W, 3). visible int64 (B, V), target int64 (B, M),
        weight float32 (B, M): the fields of a MaskBatch.
        """
        tokens = self.tokens.split(data)
        row = _rows(tokens)
        with torch.no_grad():
            expected = self.tokens.targets(tokens[row, target])
        predicted = self._predict(tokens[row, visible], visible, target)
        error = F.mse_loss(predicted.float(), expected, reduction="none").mean(dim=2)
        return (error * weight).sum() / weight.sum()

    def metadata(self) -> dict[str, str]:
        """The kind of tokens and the configs, as `load_model` reads them."""
        return {
            "kind": self.tokens.kind,
            "model": json.dumps(asdict(self.config)),
            "tokens": json.dumps(asdict(self.tokens.config)),
        }

    def predict(self, data: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """What the decoder says of the tokens `target`, (B, M, n_targets), having seen only the tokens `visible`."""
        tokens = self.tokens.split(data)
        return self._predict(tokens[_rows(tokens), visible], visible, target)

    def encode(self, data: Tensor, visible: Tensor) -> Tensor:
        """The encoder's output for the tokens `visible` (B, V): (B, V, D)."""
        tokens = self.tokens.split(data)
        return self._encode(tokens[_rows(tokens), visible], visible)

    def _encode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        x = self.embed(self.tokens.inputs(tokens)) + self.encoder_positions[visible]
        for block in self.encoder:
            x = block(x)
        return cast(Tensor, self.encoder_norm(x))

    def _predict(self, tokens: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        seen = self.bridge(self._encode(tokens, visible))
        if isinstance(self.decoder, WindowDecoder):
            x = self._decode_grid(self.decoder, seen, visible, target)
        else:
            seen = seen + self.decoder_positions[visible]
            x = torch.cat((seen, self.mask_token + self.decoder_positions[target]), dim=1)
            for block in self.decoder:
                x = block(x)
            x = x[:, visible.shape[1] :]
        return cast(Tensor, self.head(self.decoder_norm(x)))

    def _decode_grid(self, decoder: WindowDecoder, seen: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """All tokens in their places, mask tokens where none was seen, (B, M, E) of them after the decoder."""
        grid = self.mask_token.to(seen.dtype).expand(len(seen), self.tokens.n_tokens, -1)
        grid = grid.scatter(1, visible[..., None].expand_as(seen), seen)
        x = decoder(grid + self.decoder_positions)
        return cast(Tensor, x.gather(1, target[..., None].expand(-1, -1, x.shape[2])))


def _rows(tokens: Tensor) -> Tensor:
    """Row numbers (B, 1) that pair with an index (B, K), so that `tokens[rows, index]` gathers along the tokens."""
    return torch.arange(tokens.shape[0], device=tokens.device)[:, None]
