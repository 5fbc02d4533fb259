"""One tower for an image and its text: they share attention, and each has layer norms and MLPs of its own.

Source: multiway transformers (BEiT-3, Wang et al., 2023, section 2.1). Shapes: B samples, N patches of an image, L
tokens of a text, D channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.train.core.dropout import ResidualBlock
from maskstream.train.core.model import Grids, ModelConfig

from .media_tokens import ImageTokens
from .token_layers import TokenIds
from .transformer import INIT_STD, MLP, Attention, Norms

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
        """of_image: the first so many tokens are of the image. mask: see `attend`."""
        x = self.joined(x, self.attention(normalise(self.norm1, x, of_image), mask))
        inner = normalise(self.norm2, x, of_image)
        made = (self.mlps[IMAGE](inner[:, :of_image]), self.mlps[TEXT](inner[:, of_image:]))
        return self.joined(x, torch.cat(made, dim=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiwayConfig(ModelConfig[ImageTextBatch]):
    """The sizes of a tower; the defaults are those of BEiT-3 base. vocabulary: the number of token ids, that of the
    split's tokenizer or more.
    """

    vocabulary: int = 64010
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    eps: float = 1e-5

    def __post_init__(self) -> None:
        self.need_heads(of=4)
        self.need_least("depth", "mlp_ratio", "vocabulary")


class Multiway(nn.Module):
    """The tower. Image: a class token and patches with fixed positions, of which hidden ones are a mask token. Text:
    ids with learned positions, whose first token stands for the text. Patches have a layer norm before their positions
    are added, so that much white does not drown these.
    """

    TABLES = ("kind", "mask_token", "class_token")
    """The parameters that are tables of embeddings, which do not decay."""

    place: Tensor

    def __init__(self, c: MultiwayConfig, grids: Grids) -> None:
        super().__init__()
        (length,) = grids["text"].need("token", by="a model of images with texts")
        self.tokens = tokens = ImageTokens(grids["image"])
        width, eps = c.width, c.eps
        self.embed = nn.Sequential(nn.Linear(tokens.n_inputs, width), nn.LayerNorm(width, eps=eps))
        self.register_buffer("place", tokens.positions(width), persistent=False)
        self.class_token = nn.Parameter(torch.empty(width).normal_(std=INIT_STD))
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=INIT_STD))
        self.ids = TokenIds(c.vocabulary, width, length, learned=True, eps=eps)
        self.kind = nn.Parameter(torch.zeros(2, width))
        self.blocks = nn.ModuleList(MultiwayBlock(width, c.heads, c.mlp_ratio, eps) for _ in range(c.depth))
        self.norm = Norms(width, eps, 2)

    def forward(self, image: Tensor, ids: Tensor, valid: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The tokens of images uint8 (B, H, W, 3), (B, 1 + N, D), and of texts int (B, L), (B, L, D).

        valid: bool (B, L), False for padding. hidden: bool (B, N), the patches that are not seen.
        """
        x = self.embed(self.tokens.inputs(self.tokens.split(image)))
        if hidden is not None:
            x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x)
        first = self.class_token.to(x.dtype).expand(len(x), 1, -1)
        seen = torch.cat((first, x + self.place), dim=1) + self.kind[IMAGE]
        read = self.ids(ids, torch.arange(ids.shape[1], device=ids.device)) + self.kind[TEXT]
        both, of_image = torch.cat((seen, read), dim=1), seen.shape[1]
        mask = F.pad(valid, (of_image, 0), value=True)[:, None, None]
        for block in self.blocks:
            both = block(both, of_image, mask)
        made = normalise(self.norm, both, of_image)
        return made[:, :of_image], made[:, of_image:]


def normalise(norms: Norms, x: Tensor, of_image: int) -> Tensor:
    """The tokens (B, N + L, D) after the layer norms of their kinds."""
    return torch.cat((norms(x[:, :of_image], IMAGE), norms(x[:, of_image:], TEXT)), dim=1)
