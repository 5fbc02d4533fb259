"""One tower for an image and its text, which share attention but have separate layer norms and MLPs.

Source: multiway transformers (BEiT-3, Wang et al., 2023, section 2.1). BEiT-3's code differs from its paper: it shares
no layer, and has additional norms inside attention and MLP (sub-LN). Shapes: B samples, N patches of an image, L tokens
of a text, D channels.
"""

from abc import ABC
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.dropout import ResidualBlock
from maskstream.train.core.model import Grids, ModelConfig

from .media_tokens import ImageTokens
from .token_layers import TokenIds
from .transformer import INIT_STD, MLP, Attention, Norms, attend

IMAGE, TEXT = 0, 1
"""The kinds of tokens."""


class MultiwayBlock(ResidualBlock):
    """A pre-norm block over the tokens of an image and of a text, (B, N + L, D)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.norm1 = Norms(width, eps, 2)
        self.attention = Attention(width, heads)
        self.norm2 = Norms(width, eps, 2)
        self.mlps = nn.ModuleList(MLP(width, mlp_ratio) for _ in range(2))

    def forward(self, x: Tensor, of_image: int, mask: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: Tokens (B, S, D), image tokens first.
            of_image: Number of tokens of the image.
            mask: Attention mask; see `attend`.
        """
        x = self.joined(x, self.attention(normalise(self.norm1, x, of_image), mask))
        inner = normalise(self.norm2, x, of_image)
        made = (self.mlps[IMAGE](inner[:, :of_image]), self.mlps[TEXT](inner[:, of_image:]))
        return self.joined(x, torch.cat(made, dim=1))


class PartLayers(nn.Module):
    """The layers of one kind of token in a block of BEiT-3's code, with additional norms before the last layer of
    attention and of the MLP.
    """

    def __init__(self, width: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        inner = mlp_ratio * width
        self.norm1, self.qkv = nn.LayerNorm(width, eps=eps), nn.Linear(width, 3 * width)
        self.attended, self.out = nn.LayerNorm(width, eps=eps), nn.Linear(width, width)
        self.norm2, self.up = nn.LayerNorm(width, eps=eps), nn.Linear(width, inner)
        self.middle, self.down = nn.LayerNorm(inner, eps=eps), nn.Linear(inner, width)

    def asked(self, x: Tensor) -> Tensor:
        """Return the queries, keys and values of tokens (B, S, D): (B, S, 3 D)."""
        return cast(Tensor, self.qkv(self.norm1(x)))

    def told(self, seen: Tensor) -> Tensor:
        """Return the output of attention, given the attended values `seen` (B, S, D)."""
        return cast(Tensor, self.out(self.attended(seen)))

    def fed(self, x: Tensor) -> Tensor:
        """Return the output of the MLP for tokens (B, S, D)."""
        return cast(Tensor, self.down(self.middle(F.gelu(self.up(self.norm2(x))))))


class PartsBlock(ResidualBlock):
    """A block of BEiT-3's code over (B, N + L, D): image and text attend to each other, but all layers are separate."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.image, self.text = PartLayers(width, mlp_ratio, eps), PartLayers(width, mlp_ratio, eps)

    def forward(self, x: Tensor, of_image: int, mask: Tensor) -> Tensor:
        """Run the block; see `MultiwayBlock`.

        Args:
            x: Tokens (B, S, D), image tokens first.
            of_image: Number of tokens of the image.
            mask: Attention mask; see `attend`.
        """
        image, text = self.image, self.text
        asked = torch.cat((image.asked(x[:, :of_image]), text.asked(x[:, of_image:])), dim=1)
        q, k, v = asked.view(*asked.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        seen = attend(q, k, v, mask).transpose(1, 2).flatten(2)
        x = self.joined(x, torch.cat((image.told(seen[:, :of_image]), text.told(seen[:, of_image:])), dim=1))
        return self.joined(x, torch.cat((image.fed(x[:, :of_image]), text.fed(x[:, of_image:])), dim=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiwayConfig(ModelConfig[ImageTextBatch], ABC):
    """The sizes of a tower, by default BEiT-3 base.

    Attributes:
        vocabulary: Number of token ids, at least as many as the split's tokenizer has.
        width: Number of channels.
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of the layer norms.
        apart: Whether to use the tower of BEiT-3's code: image and text share no layer, norms inside attention and MLP,
            learned positions of patches, and no other norm or kind embedding before the blocks.
    """

    vocabulary: PositiveInt = 64010
    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-5
    apart: bool = False

    def validate(self) -> None:
        self.need_heads(of=4)


class Multiway(nn.Module):
    """The tower of image and text.

    The image is a class token and patches with fixed positions, hidden ones replaced by a mask token. The text is ids
    with learnt positions; the first token represents the text. Patches have a layer norm before their positions are
    added, so that large white areas do not dominate them; see `MultiwayConfig.apart` for the tower without it.
    """

    TABLES = ("kind", "mask_token", "class_token", "place")
    """The parameters that are tables of embeddings, which do not decay."""

    place: Tensor

    def __init__(self, c: MultiwayConfig, grids: Grids) -> None:
        super().__init__()
        (length,) = grids["text"].need("token", by="a model of images with texts")
        self.tokens = tokens = ImageTokens(grids["image"])
        width, eps = c.width, c.eps
        first = nn.Linear(tokens.n_inputs, width)
        self.embed = first if c.apart else nn.Sequential(first, nn.LayerNorm(width, eps=eps))
        if c.apart:
            self.place = nn.Parameter(torch.empty(1 + tokens.n_tokens, width).normal_(std=INIT_STD))
        else:
            self.register_buffer("place", F.pad(tokens.positions(width), (0, 0, 1, 0)), persistent=False)
        self.class_token = nn.Parameter(torch.empty(width).normal_(std=INIT_STD))
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=INIT_STD))
        self.ids = TokenIds(c.vocabulary, width, length, learned=True, eps=None if c.apart else eps)
        self.kind = None if c.apart else nn.Parameter(torch.zeros(2, width))
        block = PartsBlock if c.apart else MultiwayBlock
        self.blocks = nn.ModuleList(block(width, c.heads, c.mlp_ratio, eps) for _ in range(c.depth))
        self.norm = Norms(width, eps, 2)

    def forward(self, image: Tensor, ids: Tensor, valid: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode images and texts together.

        Args:
            image: Images uint8 (B, H, W, 3).
            ids: Token ids int (B, L).
            valid: bool (B, L), False for padding.
            hidden: Patches that are not seen, bool (B, N).

        Returns:
            The tokens of the images (B, 1 + N, D) and of the texts (B, L, D).
        """
        x = self.embed(self.tokens.inputs(self.tokens.split(image)))
        if hidden is not None:
            x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x)
        first = self.class_token.to(x.dtype).expand(x.shape[0], 1, -1)
        seen = torch.cat((first, x), dim=1) + self.place
        read = self.ids(ids, torch.arange(ids.shape[1], device=ids.device))
        if self.kind is not None:
            seen, read = seen + self.kind[IMAGE], read + self.kind[TEXT]
        both, of_image = torch.cat((seen, read), dim=1), seen.shape[1]
        mask = F.pad(valid, (of_image, 0), value=True)[:, None, None]
        for block in self.blocks:
            both = block(both, of_image, mask)
        made = normalise(self.norm, both, of_image)
        return made[:, :of_image], made[:, of_image:]


def normalise(norms: Norms, x: Tensor, of_image: int) -> Tensor:
    """Apply the layer norms of each kind to tokens (B, N + L, D).

    Args:
        norms: Layer norms by kind.
        x: Tokens of images, then of texts.
        of_image: N, the number of image tokens.
    """
    return torch.cat((norms(x[:, :of_image], IMAGE), norms(x[:, of_image:], TEXT)), dim=1)
