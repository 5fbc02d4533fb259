"""The masked language model: an encoder over token ids, without padding, that predicts the hidden ones.

Shapes: B rows of up to L tokens, T tokens of all documents, K of them hidden, D channels.

All layers but attention see the T tokens as one sequence, attention sees documents (token_layers.py), and the
head sees the K hidden tokens alone. On a CPU the last layer, too, computes them alone, from the keys and values of all.
So neither padding nor visible tokens cost what is not needed of them.

BERT's weights in transformers have other names: it has separate linear layers for query, key and value, and adds the
embedding of a token's segment. All tokens have segment 0 here. Its vector is part of the embeddings of places, but in a
model that also uses places alone.
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
    """Whether a state dict is that of a BERT of transformers."""
    return ROOT["embed.ids.weight"] in state and SEGMENTS in state


def convert_from_bert(state: Mapping[str, Tensor], *, segment: bool = False) -> dict[str, Tensor]:
    """The weights of a BERT of transformers by the names of a `TokenModel`; what it lacks, such as a head, is left out.

    segment: keep the vector of the first segment apart instead of adding it to the places. Its pooler and its predictor
    of the next sentence have no counterpart.
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
    """The sizes of a masked language model; the defaults are those of BERT (Devlin et al., 2019) of base size.

    vocabulary: the number of token ids. positions: how places in a document enter (see `Positions`). norm: where layer
    norms stand (see `NormAt`). gated: use gated feed-forward layers. eps: of all layer norms. classes: the number of
    classes of tokens whose losses are averaged over the run, for masks that follow them (masks.ByClass); 0 for none.
    momentum: of that average. bias: whether layers and norms have one.
    """

    bias: ClassVar[bool] = True

    vocabulary: int = 30522
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    positions: Positions = "learned"
    norm: NormAt = "post"
    gated: bool = False
    eps: float = 1e-12
    classes: int = 0
    momentum: float = 0.999

    def validate(self) -> None:
        self.need_heads()
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"rotary positions need an even number of channels a head, got {self.width // self.heads}; change "
                "width or heads"
            )
        self.need_least("depth", "mlp_ratio", "vocabulary")
        self.need_least("classes", least=0)
        self.need_choices(positions=Positions, norm=NormAt)

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
    """What its features are made by."""

    def features(self, batch: TextBatch) -> Tensor:
        """The mean of the encoder's output over the tokens of each row, none hidden: float32 (B, D).

        ValueError for packed rows, which have several samples.
        """
        edges, rows = batch.unpadded.cu_seqlens.long(), len(batch.tokens)
        if len(edges) != rows + 1:
            raise ValueError(f"features are of one text a row, got {len(edges) - 1} in {rows} rows; use packing='row'")
        with nullcontext() if batch.tokens.is_cuda else torch.autocast("cpu", enabled=False):
            encoded = self.encode(replace(batch, mask=None)).float()
        return torch.segment_reduce(encoded, "mean", offsets=edges)

    def rename_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `Model`: those of a BERT of transformers are renamed, and cut to the model's length.

        ValueError for a model that is not a BERT.
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
        """See `Model`. A CPU always computes in float32, or the type of the weights.

        Its kernels of bf16 are made anew for each length of a document, which takes longer than it saves and fills the
        memory: measured on a tiny model, 200 instead of 145 ms a step, and 20 MB more in each.
        """
        with nullcontext() if batch.tokens.is_cuda else torch.autocast("cpu", enabled=False):
            return self.loss(batch)

    def loss(self, batch: TextBatch) -> Losses:
        """The cross-entropy of the hidden tokens' ids in nats, the mean over those of the whole batch."""
        hidden = find_hidden_tokens(batch)
        return Losses(
            parts={"masked tokens": self.compute_masked_loss(batch, hidden, self.encode(batch, hidden.place))}
        )

    def compute_masked_loss(self, batch: TextBatch, hidden: HiddenTokens, encoded: Tensor) -> LossPart:
        """The cross-entropy of the hidden tokens' ids in nats, from the encoder's output for them (K, D)."""
        errors = F.cross_entropy(self.logits(encoded), hidden.label, reduction="none")
        if self.training and self.config.classes:
            self._count(batch, hidden, errors.detach())
        return weighted(errors, hidden.weight)

    def _count(self, batch: TextBatch, hidden: HiddenTokens, errors: Tensor) -> None:
        """Adds the losses of hidden tokens to the sums of their classes, until `update_scores`."""
        if batch.classes is None:
            raise ValueError(
                f"the model averages the losses of {self.config.classes} classes, and the batch has no classes; make "
                "shards with parts of speech, or set model.classes=0"
            )
        classes = batch.classes.flatten()[hidden.index].long().clamp_max(self.config.classes)
        weight = hidden.weight.double()
        self.class_sums.index_add_(1, classes, torch.stack((errors.double() * weight, weight)))

    def find_last_scores(self) -> Tensor:
        """The scores of the classes after the last step, float64 (classes,)."""
        return self.class_scores

    def update_scores(self) -> Tensor:
        """Moves `class_scores` by the losses of the classes since the last call, over all ranks, and returns them.

        A class that did not occur keeps its score. Source: Yang et al. (2023), POS-tagging weighted masking.
        """
        total, count = sum_over_ranks(self.class_sums[:, :-1])
        share = (count > 0) * (1.0 - self.config.momentum)
        self.class_scores.lerp_(total / count.clamp_min(1e-12), share.double())
        self.class_sums.zero_()
        return self.class_scores

    def encode(self, batch: TextBatch, at: Tensor | None = None) -> Tensor:
        """The encoder's output (T, D) for the ids that the mask has; for the true ids where the batch has no mask.

        at: int64 (K,), the places among the T tokens of which the output (K, D) is wanted; None for all.
        """
        if batch.mask is not None:
            need_mask(batch)
        unpadded = batch.unpadded
        return self.encode_ids(
            unpadded.gathered(batch.inputs), unpadded.positions, unpadded.cu_seqlens, unpadded.longest, at
        )

    def encode_ids(self, ids: Tensor, places: Tensor, edges: Tensor, longest: int, at: Tensor | None = None) -> Tensor:
        """The encoder's output (T, D) for ids int (T,) at `places` of their documents, which have the `edges`.

        at: see `encode`. A CUDA device computes all tokens and returns those, since its kernel of attention knows no
        others. ValueError for a document that is longer than the model's longest.
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
        """What the attention of each block sees of the documents."""
        c = self.config
        seen = Documents.of(edges, longest, places, positions=c.positions, heads=c.heads, channels=c.width // c.heads)
        return [seen] * c.depth

    def logits(self, x: Tensor) -> Tensor:
        """The logits of ids (..., vocabulary) of encoded tokens (..., D)."""
        return cast(Tensor, self.head(x, self.embed.ids.weight))

    def compute_hidden_logits(self, batch: TextBatch, hidden: HiddenTokens) -> Tensor:
        """The logits of ids (K, vocabulary) of a batch's hidden tokens."""
        return self.logits(self.encode(batch, hidden.place))

    def reconstructed(self, batch: TextBatch) -> TextBatch:
        """The batch with each hidden token replaced by the most probable id."""
        hidden = find_hidden_tokens(batch)
        ids = self.compute_hidden_logits(batch, hidden).argmax(dim=-1).int()
        tokens = batch.tokens.flatten().clone()
        counts = hidden.weight > 0
        tokens[hidden.index[counts]] = ids[counts]
        rows = tokens.view_as(batch.tokens)
        return replace(batch, tokens=rows, unpadded=replace(batch.unpadded, tokens=batch.unpadded.gathered(rows)))
