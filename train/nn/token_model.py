"""The masked language model: an encoder over token ids, without padding, that predicts the hidden ones.

Shapes: B rows of up to L tokens, T tokens of all documents, K of them hidden, D channels.

All layers except attention process the T tokens as one sequence, attention works within documents (token_layers.py),
and the head only reads the K hidden tokens. On a CPU the last layer also computes only these, from the keys and values
of all tokens. So neither padding nor visible tokens cost unneeded work.

In transformers, BERT's weights have other names: it has separate linear layers for query, key and value, and adds the
embedding of a token's segment. All tokens have segment 0 here. The vector of segment 0 is added to the position
embeddings, except in a model that also uses positions alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.shards.limits import NaturalInt, PositiveInt
from maskstream.train.core.distributed import sum_over_ranks
from maskstream.train.core.model import Grids, Losses, LossPart, Model, ModelConfig, weighted

from .token_layers import (
    Documents,
    HiddenTokens,
    Positions,
    TokenBlock,
    TokenHead,
    TokenIds,
    find_hidden_tokens,
    need_mask,
)
from .transformer import NormAt, init_normal

ROOT = {
    "embed.ids.weight": "bert.embeddings.word_embeddings.weight",
    "embed.places.weight": "bert.embeddings.position_embeddings.weight",
    "embed.norm.weight": "bert.embeddings.LayerNorm.weight",
    "embed.norm.bias": "bert.embeddings.LayerNorm.bias",
    "head.dense.weight": "cls.predictions.transform.dense.weight",
    "head.dense.bias": "cls.predictions.transform.dense.bias",
    "head.norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "head.norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "head.bias": "cls.predictions.bias",
}
BLOCK = {
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "norm2": "output.LayerNorm",
}
PARTS = ("query", "key", "value")
SEGMENTS = "bert.embeddings.token_type_embeddings.weight"
OUTPUT = {"cls.predictions.decoder.weight": "embed.ids.weight", "cls.predictions.decoder.bias": "head.bias"}
LAYERS = "bert.encoder.layer"


def is_bert(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is a BERT of transformers."""
    return ROOT["embed.ids.weight"] in state and SEGMENTS in state


def convert_from_bert(state: Mapping[str, Tensor], *, segment: bool = False) -> dict[str, Tensor]:
    """Return the weights of a transformers BERT under the names of a `TokenModel`.

    Missing parts, such as a head, are left out. The pooler and the predictor of the next sentence have no counterpart.

    Args:
        state: State dict of the BERT.
        segment: Whether to keep the vector of the first segment separate instead of adding it to the positions.
    """
    ours = {name: state[theirs] for name, theirs in ROOT.items() if theirs in state}
    if segment:
        ours["embed.segment"] = state[SEGMENTS][0]
    else:
        ours["embed.places.weight"] = ours["embed.places.weight"] + state[SEGMENTS][0]
    depth = len({name.split(".")[3] for name in state if name.startswith(LAYERS)})
    for i in range(depth):
        own, theirs = f"blocks.{i}", f"{LAYERS}.{i}"
        for kind in ("weight", "bias"):
            for part, name in BLOCK.items():
                ours[f"{own}.{part}.{kind}"] = state[f"{theirs}.{name}.{kind}"]
            ours[f"{own}.attention.qkv.{kind}"] = torch.cat(
                [state[f"{theirs}.attention.self.{part}.{kind}"] for part in PARTS]
            )
    return ours


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenModelConfig(ModelConfig[TextBatch]):
    """The sizes of a masked language model, by default BERT base (Devlin et al., 2019).

    Attributes:
        vocabulary: Number of token ids.
        width: Number of channels.
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of the feed-forward part per channel.
        positions: Encoding of positions in a document (see `Positions`).
        norm: Location of layer norms (see `NormAt`).
        gated: Whether to use gated feed-forward layers.
        eps: Epsilon of all layer norms.
        classes: Number of token classes whose losses are averaged over the run, for masks that follow them
            (masks.ByClass); 0 for none.
        momentum: Momentum of that average.
        bias: Whether layers and norms have biases.
    """

    bias: ClassVar[bool] = True

    vocabulary: PositiveInt = 30522
    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    positions: Positions = "learned"
    norm: NormAt = "post"
    gated: bool = False
    eps: float = 1e-12
    classes: NaturalInt = 0
    momentum: float = 0.999

    def validate(self) -> None:
        self.need_heads()
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"rotary positions need an even number of channels per head, got {self.width // self.heads}; change "
                "width or heads"
            )

    @property
    def inner(self) -> int:
        """The channels between the layers of a feed-forward part."""
        return self.mlp_ratio * self.width


class TokenModel(Model[TextBatch], config=TokenModelConfig):
    """A masked language model. `class_scores`: float64 (classes,), the moving average of the loss of each class."""

    whole_graph = True
    float32_on_cpu = True
    class_scores: Tensor
    class_sums: Tensor

    def __init__(self, config: TokenModelConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        (length,) = grids["text"].need("token", by="a text model")
        learned = c.positions == "learned"
        self.embed = TokenIds(c.vocabulary, c.width, length, learned=learned, eps=c.eps, bias=c.bias)
        self.blocks = nn.ModuleList(
            TokenBlock(c.width, c.heads, c.inner, norm=c.norm, gated=c.gated, eps=c.eps, bias=c.bias)
            for _ in range(c.depth)
        )
        self.last = nn.LayerNorm(c.width, eps=c.eps, bias=c.bias) if c.norm == "pre" else nn.Identity()
        self.head = TokenHead(c.width, c.vocabulary, c.eps, bias=c.bias)
        self.register_buffer("class_scores", torch.zeros(c.classes, dtype=torch.float64), persistent=c.classes > 0)
        self.register_buffer("class_sums", torch.zeros(2, c.classes + 1, dtype=torch.float64), persistent=False)
        init_normal(self, c.width)

    encoder_parts: ClassVar[tuple[str, ...]] = ("embed", "blocks", "last")
    """Parts that compute the features."""

    def features(self, batch: TextBatch) -> Tensor:
        """Return the mean of the encoder's output over the tokens of each row, none hidden: float32 (B, D).

        Args:
            batch: Batch with one text per row.

        Raises:
            ValueError: Rows are packed, with several samples each.
        """
        edges, rows = batch.unpadded.cu_seqlens.long(), len(batch.tokens)
        if len(edges) != rows + 1:
            raise ValueError(f"features need one text per row, got {len(edges) - 1} in {rows} rows; use packing='row'")
        with nullcontext() if batch.tokens.is_cuda else torch.autocast("cpu", enabled=False):
            encoded = self.encode(replace(batch, mask=None)).float()
        return torch.segment_reduce(encoded, "mean", offsets=edges)

    def rename_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the weights of a transformers BERT under this model's names, with positions cut to the model's length;
        see `Model`.

        Raises:
            ValueError: The weights are a BERT, but the model is not.
        """
        if not is_bert(weights):
            return weights
        if self.embed.places is None or self.config.norm != "post" or self.config.gated:
            raise ValueError(
                "BERT's weights fit a model with positions='learned', norm='post' and gated=False, got "
                f"positions={self.config.positions!r}, norm={self.config.norm!r} and gated={self.config.gated}"
            )
        own = convert_from_bert(weights, segment=self.embed.segment is not None)
        own["embed.places.weight"] = own["embed.places.weight"][: self.embed.length]
        return own

    def forward(self, batch: TextBatch) -> Losses:
        """Return the loss; see `Model`. A CPU always computes in float32, or the type of the weights.

        The CPU's bf16 kernels are rebuilt for each document length, which takes longer than it saves and fills the
        memory: on a tiny model, a step took 200 instead of 145 ms and 20 MB more memory.
        """
        with nullcontext() if batch.tokens.is_cuda else torch.autocast("cpu", enabled=False):
            return self.loss(batch)

    def loss(self, batch: TextBatch) -> Losses:
        """Return the mean cross-entropy of the hidden tokens' ids in nats, over the whole batch."""
        hidden = find_hidden_tokens(batch)
        return Losses(
            parts={"masked tokens": self.compute_masked_loss(batch, hidden, self.encode(batch, hidden.place))}
        )

    def compute_masked_loss(self, batch: TextBatch, hidden: HiddenTokens, encoded: Tensor) -> LossPart:
        """Return the cross-entropy of the hidden tokens' ids in nats.

        Args:
            batch: The batch, whose classes are counted if the model averages their losses.
            hidden: The hidden tokens.
            encoded: The encoder's output for them (K, D).
        """
        errors = F.cross_entropy(self.logits(encoded), hidden.label, reduction="none")
        if self.training and self.config.classes:
            self._count(batch, hidden, errors.detach())
        return weighted(errors, hidden.weight)

    def _count(self, batch: TextBatch, hidden: HiddenTokens, errors: Tensor) -> None:
        """Add the losses of hidden tokens to the sums of their classes, until `update_scores`."""
        if batch.classes is None:
            raise ValueError(
                f"the model averages the losses of {self.config.classes} classes, but the batch has no classes; build "
                "shards with parts of speech, or set model.classes=0"
            )
        classes = batch.classes.flatten()[hidden.index].long().clamp_max(self.config.classes)
        weight = hidden.weight.double()
        self.class_sums.index_add_(1, classes, torch.stack((errors.double() * weight, weight)))

    def find_last_scores(self) -> Tensor:
        """Return the scores of the classes after the last step, float64 (classes,)."""
        return self.class_scores

    def update_scores(self) -> Tensor:
        """Update `class_scores` by the losses of the classes since the last call, over all ranks, and return them.

        The score of a class that did not occur is unchanged. Source: Yang et al. (2023), POS-tagging weighted masking.
        """
        total, count = sum_over_ranks(self.class_sums[:, :-1])
        share = (count > 0) * (1.0 - self.config.momentum)
        self.class_scores.lerp_(total / count.clamp_min(1e-12), share.double())
        self.class_sums.zero_()
        return self.class_scores

    def encode(self, batch: TextBatch, at: Tensor | None = None) -> Tensor:
        """Return the encoder's output (T, D) for the masked ids, or for the true ids if the batch has no mask.

        Args:
            batch: The batch.
            at: Indices among the T tokens whose output (K, D) is needed, int64 (K,); None for all.
        """
        if batch.mask is not None:
            need_mask(batch)
        unpadded = batch.unpadded
        return self.encode_ids(
            unpadded.gathered(batch.inputs), unpadded.positions, unpadded.cu_seqlens, unpadded.longest, at
        )

    def encode_ids(self, ids: Tensor, places: Tensor, edges: Tensor, longest: int, at: Tensor | None = None) -> Tensor:
        """Return the encoder's output (T, D) for ids.

        Args:
            ids: Ids int (T,).
            places: Positions in their documents, int (T,).
            edges: Boundaries of the documents, int32 (S + 1,).
            longest: Number of tokens of the longest document.
            at: See `encode`. A CUDA device computes all tokens and selects these, since its attention kernel needs all.

        Raises:
            ValueError: A document is longer than the model allows.
        """
        if longest > self.embed.length:
            raise ValueError(
                f"the model reads documents of up to {self.embed.length} tokens, got one of {longest}; "
                "use one length for the loader and the model"
            )
        *documents, seen_last = self.documents(edges, longest, places)
        x = self.embed(ids, places)
        for block, seen in zip(self.blocks[:-1], documents, strict=True):
            x = block(x, seen)
        if at is None or x.is_cuda or not len(at):
            x = cast(Tensor, self.last(self.blocks[-1](x, seen_last)))
            return x if at is None else x[at]
        asked, order = torch.unique(at, return_inverse=True)
        return cast(Tensor, self.last(self.blocks[-1](x, seen_last, seen_last.asking(asked))))[order]

    def documents(self, edges: Tensor, longest: int, places: Tensor) -> Sequence[Documents]:
        """Return the view of the documents that each block's attention has.

        Args:
            edges: Boundaries of the documents, int32 (S + 1,).
            longest: Length of the longest document.
            places: Position of each token in its document.
        """
        c = self.config
        seen = Documents.of(edges, longest, places, positions=c.positions, heads=c.heads, channels=c.width // c.heads)
        return [seen] * c.depth

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of ids (..., vocabulary) of encoded tokens (..., D)."""
        return cast(Tensor, self.head(x, self.embed.ids.weight))

    def compute_hidden_logits(self, batch: TextBatch, hidden: HiddenTokens) -> Tensor:
        """Return the logits of ids (K, vocabulary) of a batch's hidden tokens.

        Args:
            batch: The batch.
            hidden: Hidden tokens of the batch.
        """
        return self.logits(self.encode(batch, hidden.place))

    def reconstructed(self, batch: TextBatch) -> TextBatch:
        """Return the batch with each hidden token replaced by the most probable id."""
        hidden = find_hidden_tokens(batch)
        ids = self.compute_hidden_logits(batch, hidden).argmax(dim=-1).int()
        tokens = batch.tokens.flatten().clone()
        counts = hidden.weight > 0
        tokens[hidden.index[counts]] = ids[counts]
        rows = tokens.view_as(batch.tokens)
        return replace(batch, tokens=rows, unpadded=replace(batch.unpadded, tokens=batch.unpadded.gathered(rows)))
