"""RetroMAE: a masked language model whose sentence vector must let a weak decoder reconstruct the whole text.

Shapes: B texts of up to L tokens, T tokens of all texts, D channels.

The decoder is one layer. Each position's query is the sentence vector plus its position vector; it attends to a random
part of the text (masks.DecoderRows), different for each position, and predicts its token. So the vector must contain
most of the required information. Source: RetroMAE (Xiao et al., 2022), enhanced decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.train.core.dropout import AttentionRate, Dropping
from maskstream.train.core.model import Grids, Losses, LossPart, weighted
from maskstream.train.nn.token_layers import FeedForward, find_hidden_tokens, need_mask
from maskstream.train.nn.token_model import TokenModel, TokenModelConfig
from maskstream.train.nn.transformer import INIT_STD, init_normal


@dataclass(frozen=True, kw_only=True, slots=True)
class RetroModelConfig(TokenModelConfig):
    """The sizes of a RetroMAE; the decoder's layer has the same sizes as a layer of the encoder.

    The decoder's queries use position vectors: the encoder's learned ones if it has them, otherwise separate ones.

    Attributes:
        segment: Whether tokens have a segment vector besides their position, like BERT's, so that it is not part of the
            decoder's queries.
    """

    segment: bool = False

    def validate(self) -> None:
        TokenModelConfig.validate(self)
        if self.segment and self.positions != "learned":
            raise ValueError(f"segment=True needs positions='learned', got positions={self.positions!r}")


class RetroModel(TokenModel, config=RetroModelConfig):
    """A RetroMAE: the encoder and the head of a masked language model, and a decoder of one layer."""

    def __init__(self, config: RetroModelConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        if config.segment:
            self.embed.segment = nn.Parameter(torch.empty(config.width).normal_(std=INIT_STD))
        self.decoder = EnhancedDecoder(config.width, config.heads, config.mlp_ratio * config.width, config.eps)
        self.places = None if self.embed.places is not None else nn.Embedding(self.embed.length, config.width)
        init_normal(self.decoder, config.width)
        if self.places is not None:
            init_normal(self.places, config.width)

    def loss(self, batch: TextBatch) -> Losses:
        """Return the cross-entropies of the encoder's hidden tokens and of all tokens that the decoder predicts, in
        nats.
        """
        hidden, first = find_hidden_tokens(batch), batch.unpadded.cu_seqlens[:-1].long()
        encoded = self.encode(batch, torch.cat((first, hidden.place)))
        parts = {
            "masked tokens": self.compute_masked_loss(batch, hidden, encoded[len(first) :]),
            "decoded tokens": self.compute_decoded_loss(batch, encoded[: len(first)]),
        }
        return Losses(parts=parts)

    def compute_decoded_loss(self, batch: TextBatch, sentence: Tensor) -> LossPart:
        """Return the cross-entropy of all tokens except the first and the last of each text.

        Args:
            batch: The batch.
            sentence: Sentence vectors (B, D).
        """
        unpadded = batch.unpadded
        edges = unpadded.cu_seqlens.long()
        rows, length = batch.tokens.shape
        if len(edges) != rows + 1:
            raise ValueError(
                f"RetroMAE reads one text per row, got {len(edges) - 1} texts in {rows} rows; set data.packing='row'"
            )
        attend = need_mask(batch).attend
        if attend is None:
            raise ValueError("the batch's mask has no decoder attention; use masks.DecoderRows(encoder=...)")
        n = unpadded.longest
        decoded = self.decode(batch.tokens[:, :n], sentence, attend[:, :n, :n])
        made = decoded[unpadded.index // length, unpadded.index % length]
        weight = torch.ones(len(made), device=made.device)
        weight[edges[:-1]] = weight[edges[1:] - 1] = 0
        if batch.weight is not None:
            weight = weight * batch.weight[unpadded.index // length]
        errors = F.cross_entropy(self.logits(made), unpadded.tokens.long(), reduction="none")
        return weighted(errors, weight)

    def decode(self, ids: Tensor, sentence: Tensor, attend: Tensor) -> Tensor:
        """Return the decoder's output (B, N, D).

        Args:
            ids: True ids (B, N).
            sentence: Sentence vectors (B, D).
            attend: Tokens that each position attends to, bool (B, N, N).
        """
        places = torch.arange(ids.shape[1], device=ids.device)
        known = self.embed(ids, places.expand_as(ids))
        if self.places is not None:
            known = known + self.places(places)
        seen = torch.cat((sentence[:, None].to(known.dtype), known[:, 1:]), dim=1)
        table = cast(nn.Embedding, self.embed.places if self.places is None else self.places)
        asked = table(places) + sentence[:, None]
        return cast(Tensor, self.decoder(asked, seen, attend))


class EnhancedDecoder(Dropping):
    """A post-norm transformer layer whose queries (B, N, D) attend to other vectors (B, N, D)."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention = AttentionRate()
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = FeedForward(width, hidden, gated=False)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, asked: Tensor, seen: Tensor, attend: Tensor) -> Tensor:
        q = self.query(asked).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.attention.rate_now
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=attend[:, None], dropout_p=rate)
        x = self.norm1(asked + self.dropped(self.out(found.transpose(1, 2).flatten(2))))
        return cast(Tensor, self.norm2(x + self.mlp(x)))
