"""The encoder of an image with its text: one of each by itself, then blocks in which they attend to each other.

Shapes: B samples, N patches of an image, V of them visible, L tokens of a text, D channels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.train.nn.encoder_decoder import VisibleEncoder
from maskstream.train.nn.fusion import FusionBlock
from maskstream.train.nn.image_tokens import ImageTokens
from maskstream.train.nn.init import INIT_STD
from maskstream.train.nn.select import gather_tokens
from maskstream.train.nn.stacks import Stack
from maskstream.train.nn.token_ids import TokenIds


class M3AEEncoder(nn.Module):
    """Image: a class token and patches with fixed positions. Text: ids with learned positions. Each stream has an
    embedding of its kind before the blocks of fusion.

    vocabulary: the number of ids. depths: the blocks of the image's encoder, of the text's and of the fusion.
    """

    TABLES = ("kind",)
    """The parameters that are tables of embeddings, which do not decay."""

    def __init__(
        self,
        tokens: ImageTokens,
        text: TokenGrid,
        *,
        vocabulary: int,
        width: int,
        depths: tuple[int, int, int],
        heads: int,
        mlp_ratio: int,
        eps: float,
    ) -> None:
        super().__init__()
        of_image, of_text, of_both = depths
        (length,) = text.need("token", by="a model of images with texts")
        self.tokens = tokens
        self.image = VisibleEncoder(
            [tokens.n_inputs],
            [tokens.positions(width)],
            depth=of_image,
            heads=heads,
            mlp_ratio=mlp_ratio,
            eps=eps,
            class_token=True,
        )
        self.embed = TokenIds(vocabulary, width, length, learned=True, eps=eps)
        self.text = Stack(of_text, width, heads, mlp_ratio, eps)
        self.kind = nn.Parameter(torch.zeros(2, width))
        self.blocks = nn.ModuleList(FusionBlock(width, heads, mlp_ratio, eps) for _ in range(of_both))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(2))

    def of_images(self, patches: Tensor, visible: Tensor | None = None) -> Tensor:
        """uint8 patches (B, N, values) to (B, 1 + V, D), a class token first; visible: int64 (B, V), None for all."""
        if visible is None:
            visible = torch.arange(self.tokens.n_tokens, device=patches.device).expand(len(patches), -1)
        encoded = self.image(self.tokens.inputs(gather_tokens(patches, visible)), visible)
        return cast(Tensor, encoded + self.kind[0])

    def of_texts(self, ids: Tensor, valid: Tensor) -> Tensor:
        """ids int (B, L) to (B, L, D); valid: bool (B, L), False for padding."""
        places = torch.arange(ids.shape[1], device=ids.device)
        return cast(Tensor, self.text(self.embed(ids, places), valid[:, None, None]) + self.kind[1])

    def whole(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """Both streams of a batch of which nothing is hidden."""
        image = self.of_images(self.tokens.split(batch.image))
        return self.fused(image, self.of_texts(batch.text.tokens, batch.text.valid), batch.text.valid)

    def init_tables(self) -> None:
        """Gives the tables of ids and places BERT's initial weights."""
        for table in self.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=INIT_STD)

    def fused(self, image: Tensor, text: Tensor, valid: Tensor, blocks: int | None = None) -> tuple[Tensor, Tensor]:
        """Both streams after so many blocks of fusion, all by default, and after a layer norm if it was all."""
        mask = valid[:, None, None]
        for block in self.blocks[:blocks]:
            image, text = block(image, text, mask)
        if blocks is not None and blocks < len(self.blocks):
            return image, text
        return self.norms[0](image), self.norms[1](text)


class Pooler(nn.Module):
    """The first tokens of both streams, each through a linear layer and a tanh, one behind the other: (B, 2 D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return torch.cat((self.text(text[:, 0]), self.image(image[:, 0])), dim=-1).tanh()
