"""Layers of text encoders: id embeddings, a batch's hidden tokens, the head that predicts ids, and blocks in which
tokens attend within their document, without padding.

Shapes: T tokens of S concatenated documents; H heads of d channels, D channels in all.

On a CPU, attention runs document by document: one kernel call for each. Measured on 32 documents of 9 to 180 tokens (4
heads of 32 channels, forward and backward, CPU ms): one by one 13, documents of similar length padded together 20 to
25, all padded to the longest 69, one block-diagonal mask over all 145.

On a CUDA device no shape depends on values, so a step is one graph: FlashAttention's varlen kernel processes
unpadded documents, in half precision and without ALiBi's penalties; otherwise all are padded to the longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from inspect import signature
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks import TextMaskBatch
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.train.core.dropout import Dropping

from .transformer import NormAt

NO_MASK = "a text model trains on masked tokens, but the batch has no mask; pass a mask to the loader"
NO_IDS = (
    "the batch's mask has no token ids, so the encoder would see the tokens to predict; put the mask into "
    "masks.Replace(mask=..., mask_id=..., vocabulary=...)"
)


class TokenIds(Dropping):
    """The embeddings of token ids: a table of ids, with `learned` a table of positions in the document, and with `eps`
    a layer norm.

    Attributes:
        segment: Vector (D,) added to every token, like BERT's vector of the first segment; None if it is part of the
            positions.
    """

    segment: nn.Parameter | None

    def __init__(
        self, vocabulary: int, width: int, length: int, *, learned: bool, eps: float | None, bias: bool = True
    ) -> None:
        super().__init__()
        self.vocabulary, self.length = vocabulary, length
        self.ids = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width) if learned else None
        self.register_parameter("segment", None)
        self.norm = nn.Identity() if eps is None else nn.LayerNorm(width, eps=eps, bias=bias)

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        """Return the vectors of ids.

        Args:
            ids: Ids int (...).
            places: Positions in their documents, int (...).

        Returns:
            (..., D).

        Raises:
            ValueError: An id is not in the table (checked only on a CPU).
        """
        if not is_static(ids) and len(ids) and int(ids.max()) >= self.vocabulary:
            raise ValueError(
                f"the model has the ids 0 to {self.vocabulary - 1}, got {int(ids.max())}; set model.vocabulary to at "
                "least the size of the split's tokenizer"
            )
        return self.placed(self.ids(ids.long()), places)

    def placed(self, x: Tensor, places: Tensor) -> Tensor:
        """Add positions and segment to rows of the table (..., D), and apply the layer norm.

        Args:
            x: The rows.
            places: Position of each row in its text.
        """
        x = x if self.places is None else x + self.places(places.long())
        return self.dropped(self.norm(x if self.segment is None else x + self.segment))


def is_static(x: Tensor) -> bool:
    """Return whether shapes must not depend on the values of x: on a CUDA device, and in an exported graph."""
    return x.is_cuda or torch.compiler.is_exporting()


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenTokens:
    """The K hidden tokens of a batch that count in the loss; on a CUDA device also padding of weight 0.

    Attributes:
        place: Positions among the batch's tokens without padding, int64 (K,).
        label: True ids, int64 (K,).
        weight: Weights in the loss, float32 (K,).
        index: Positions in the flattened padded rows, int64 (K,).
    """

    place: Tensor
    label: Tensor
    weight: Tensor
    index: Tensor


def need_mask(batch: TextBatch) -> TextMaskBatch:
    """Return the masks of a batch, with the ids that the encoder reads; raise ValueError if they are missing."""
    if batch.mask is None:
        raise ValueError(NO_MASK)
    if not isinstance(batch.mask, TextMaskBatch) or batch.mask.tokens is None:
        raise ValueError(NO_IDS)
    return batch.mask


def find_hidden_tokens(batch: TextBatch) -> HiddenTokens:
    """Return the hidden tokens of a batch; raise ValueError if it has no mask with ids.

    A CPU drops the padding of rows with fewer hidden tokens. A CUDA device keeps it, so no shape depends on values.
    """
    mask = need_mask(batch)
    rows, length = batch.tokens.shape
    index = (mask.target + length * torch.arange(rows, device=mask.target.device)[:, None]).flatten()
    weight = mask.weight.flatten()
    if not index.is_cuda:
        real = weight > 0
        index, weight = index[real], weight[real]
    order = torch.zeros(rows * length, dtype=torch.int64, device=index.device)
    order[batch.unpadded.index] = torch.arange(len(batch.unpadded.index), device=index.device)
    return HiddenTokens(place=order[index], label=batch.tokens.flatten()[index].long(), weight=weight, index=index)


class TokenHead(nn.Module):
    """Computes logits of ids (..., vocabulary) from tokens (..., D): a linear layer, a GELU, a layer norm, and the
    table of id embeddings (vocabulary, D), which is passed in, with a separate bias (Devlin et al., 2019, and their
    code).

    Args:
        width: Number of channels.
        vocabulary: Number of ids.
        eps: Epsilon of the layer norm.
        bias: Whether the layer and the norm have a bias too.
    """

    def __init__(self, width: int, vocabulary: int, eps: float, *, bias: bool = True) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width, bias=bias)
        self.norm = nn.LayerNorm(width, eps=eps, bias=bias)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), table, self.bias)


Positions = Literal["learned", "rotary", "alibi"]
"""How a token's position in its document enters a model: as a vector added to it, as a rotation of queries and keys (Su
et al., 2021), or as an attention penalty that grows with the distance (Press et al., 2022).
"""

_HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None  # since torch 2.10
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """K of the T tokens, the only queries of attention.

    Attributes:
        index: Indices of the tokens, ascending, int64 (K,).
        lengths: Number of them in each document.
        places: For each document, their positions in it, int64.
        turns: Their rotary positions; see `Documents`.
        penalties: For each document, their penalties (H, number, length of the document).
    """

    index: Tensor
    lengths: list[int]
    places: tuple[Tensor, ...]
    turns: tuple[Tensor, Tensor] | None
    penalties: list[Tensor] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Documents:
    """The boundaries of S documents of T tokens, and the position data of attention.

    Attributes:
        edges: int32 (S + 1,); document s has the tokens [edges[s], edges[s + 1]).
        longest: Number of tokens of the longest document.
        places: Each token's position in its document, int (T,).
        lengths: Number of tokens of each document; empty on a CUDA device, to avoid waiting for it.
        turns: Cosines and sines of rotary positions, each (T, 1, d); None without them.
        penalty: Added to the logits of attention for ALiBi, (H, longest, longest); None without it.
        window: Number of tokens on each side that a token attends to; None for the whole document.
    """

    edges: Tensor
    longest: int
    places: Tensor
    lengths: list[int]
    turns: tuple[Tensor, Tensor] | None = None
    penalty: Tensor | None = None
    window: int | None = None

    @classmethod
    def of(
        cls, edges: Tensor, longest: int, places: Tensor, *, positions: Positions, heads: int, channels: int
    ) -> Documents:
        """Create the documents of a model.

        Args:
            edges: Boundaries int32 (S + 1,).
            longest: Number of tokens of the longest document.
            places: Positions in the documents, int (T,).
            positions: Kind of positions.
            heads: Number of attention heads.
            channels: Channels per head.
        """
        return cls(
            edges=edges,
            longest=longest,
            places=places,
            lengths=[] if is_static(edges) else edges.diff().tolist(),
            turns=rotations(places, channels) if positions == "rotary" else None,
            penalty=build_distance_penalty(heads, longest, edges.device) if positions == "alibi" else None,
        )

    def asking(self, index: Tensor) -> Asking:
        """Return the tokens at `index` int64 (K,), ascending, as the only queries; only on a CPU."""
        edges, lengths = self.edges.long(), self.lengths
        document = torch.bucketize(index, edges[1:], right=True)
        own = torch.bincount(document, minlength=len(lengths)).tolist()
        places = (index - edges[document]).split_with_sizes(own)
        penalties = None
        if self.penalty is not None:
            penalties = [self.penalty[:, place, :n] for place, n in zip(places, lengths, strict=True)]
        turns = None if self.turns is None else (self.turns[0][index], self.turns[1][index])
        return Asking(index=index, lengths=own, places=places, turns=turns, penalties=penalties)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, asking: Asking | None = None, dropout: float = 0.0) -> Tensor:
        """Compute attention of tokens within their documents.

        Args:
            q: Queries (T, H, d), or (K, H, d) of `asking`.
            k: Keys (T, H, d).
            v: Values (T, H, d).
            asking: Tokens that are the only queries.
            dropout: Dropout rate of attention weights; FlashAttention's kernel for documents does not support it.

        Returns:
            Attended values, in the shape of `q`.
        """
        if self.turns is not None:
            k = rotate(k, *self.turns)
            q = rotate(q, *(self.turns if asking is None or asking.turns is None else asking.turns))
        if is_static(q):
            fused = q.is_cuda and self.penalty is None and not dropout and has_fused(q, windows=self.window is not None)
            return self._fused(q, k, v) if fused else self.padded(q, k, v, dropout)
        lengths = self.lengths
        queries = q.transpose(0, 1)[None].split_with_sizes(lengths if asking is None else asking.lengths, 2)
        keys, values = (x.transpose(0, 1)[None].split_with_sizes(lengths, 2) for x in (k, v))
        if self.window is not None:
            places = [torch.arange(n) for n in lengths] if asking is None else asking.places
            near = [
                _attend_near(*one, self.window, dropout)
                for one in zip(queries, keys, values, places, strict=True)
                if one[0].shape[2]
            ]
            return torch.cat(near, dim=2)[0].transpose(0, 1)
        seen = [
            F.scaled_dot_product_attention(a, b, c, attn_mask=penalty, dropout_p=dropout)
            for a, b, c, penalty in zip(queries, keys, values, self._list_penalties(asking, q.dtype), strict=True)
            if a.shape[2]
        ]
        return torch.cat(seen, dim=2)[0].transpose(0, 1)

    def _list_penalties(self, asking: Asking | None, dtype: torch.dtype) -> list[Tensor | None]:
        """Return the penalty of each document's distances, (1, H, K, N), or None."""
        if asking is not None and asking.penalties is not None:
            return [penalty.to(dtype)[None] for penalty in asking.penalties]
        if self.penalty is None:
            return [None] * len(self.lengths)
        penalty = self.penalty.to(dtype)[None]
        return [penalty[:, :, :n, :n] for n in self.lengths]

    def padded(self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
        """Compute the same for all T tokens by one kernel call on documents padded to the longest.

        Args:
            q: Queries (T, H, d).
            k: Keys (T, H, d).
            v: Values (T, H, d).
            dropout: Dropout rate of attention weights.
        """
        documents, heads = self.edges.shape[0] - 1, q.shape[1]
        edges = self.edges.long()
        number = torch.arange(q.shape[0], device=q.device)
        if torch.compiler.is_exporting():  # ONNX has no bucketize
            document = (number[:, None] >= edges[1:]).sum(dim=1)
        else:
            document = torch.bucketize(number, edges[1:], right=True)
        index = document * self.longest + self.places
        real = (torch.arange(self.longest, device=q.device) < edges.diff()[:, None])[:, None, None]
        mask = real if self.penalty is None else self.penalty.where(real, float("-inf")).to(q.dtype)
        if self.window is not None:
            place = torch.arange(self.longest, device=q.device)
            # Padding attends to all tokens, because a softmax over nothing is NaN, also in its gradient.
            mask = mask & (((place[:, None] - place).abs() <= self.window) | ~real.transpose(2, 3))

        def spread(x: Tensor) -> Tensor:
            rows = x.new_zeros(documents * self.longest, heads, x.shape[-1]).index_copy(0, index, x)
            return rows.view(documents, self.longest, heads, -1).transpose(1, 2)

        seen = F.scaled_dot_product_attention(spread(q), spread(k), spread(v), attn_mask=mask, dropout_p=dropout)
        return seen.transpose(1, 2).flatten(0, 1).index_select(0, index)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Compute the same with FlashAttention's kernel for documents of different lengths."""
        from torch.nn.attention.varlen import varlen_attn

        if self.window is None:
            seen = varlen_attn(q, k, v, self.edges, self.edges, self.longest, self.longest)
        else:
            near = (self.window, self.window)
            seen = varlen_attn(q, k, v, self.edges, self.edges, self.longest, self.longest, window_size=near)
        if not isinstance(seen, Tensor):
            raise TypeError(f"varlen_attn returns one tensor, got {type(seen).__name__}; use torch 2.11 or newer")
        return seen


def _attend_near(q: Tensor, k: Tensor, v: Tensor, places: Tensor, window: int, dropout: float) -> Tensor:
    """Attend from queries (1, H, K, d) at ascending `places` int64 (K,) to tokens up to `window` away in a document (1,
    H, N, d).

    Queries are processed in blocks of 2 window positions, each with at most the 4 window tokens that they may see.
    Returns (1, H, K, d).
    """
    size, seen = 2 * window, []
    counts = torch.bincount(places // size).tolist()
    parts = zip(q.split_with_sizes(counts, 2), places.split_with_sizes(counts), strict=True)
    for number, (part, at) in enumerate(parts):
        if part.shape[2]:
            first, last = max(number * size - window, 0), min((number + 1) * size + window, k.shape[2])
            near = (at[:, None] - torch.arange(first, last)).abs() <= window
            own = slice(first, last)
            seen.append(
                F.scaled_dot_product_attention(part, k[:, :, own], v[:, :, own], attn_mask=near, dropout_p=dropout)
            )
    return torch.cat(seen, dim=2)


@cache
def _has_windows() -> bool:
    """Return whether FlashAttention's kernel for documents supports windows."""
    from torch.nn.attention.varlen import varlen_attn

    return "window_size" in signature(varlen_attn).parameters


def has_fused(q: Tensor, *, windows: bool = False) -> bool:
    """Return whether FlashAttention's kernel supports queries (T, H, d) on their CUDA device.

    It needs half precision, a multiple of 8 channels per head up to 256, and an Ampere GPU or newer.

    Args:
        q: Queries.
        windows: Whether attention is within windows.
    """
    channels = q.shape[-1]
    fits = _HAS_VARLEN and q.dtype in _HALF and channels % 8 == 0 and channels <= 256
    return fits and torch.cuda.get_device_properties(q.device).major >= 8 and (not windows or _has_windows())


def rotations(
    places: Tensor, channels: int, theta: float = 10000.0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of rotary positions (Su et al., 2021).

    Channel c is rotated together with channel c + channels / 2, by place / theta^(2 c / channels).

    Args:
        places: Positions int (T,).
        channels: Channels per head.
        theta: Base of the frequencies.
        dtype: Type of the results.

    Returns:
        Two tensors (T, 1, channels).
    """
    rates = torch.pow(theta, -torch.arange(0, channels, 2, device=places.device, dtype=dtype) / channels)
    angle = (places[:, None] * rates).repeat(1, 2)[:, None]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the channels of x (T, H, d) by the `rotations` of the tokens.

    Args:
        x: Queries or keys of T tokens in H heads of d channels.
        cosine: Cosines from `rotations`.
        sine: Sines from `rotations`.
    """
    first, second = x.chunk(2, dim=-1)
    return (x * cosine + torch.cat((-second, first), dim=-1) * sine).to(x.dtype)


def build_distance_penalty(heads: int, length: int, device: torch.device) -> Tensor:
    """Return ALiBi's penalties -slope |i - j| (Press et al., 2022), without the causal mask.

    The slopes are 2^(-8 h / heads) for h = 1 to `heads` if heads is a power of two. Otherwise they are the slopes of
    the power of two below it, and every second slope of the power above it.

    Args:
        heads: Number of attention heads.
        length: Number of positions.
        device: Device of the result.

    Returns:
        float32 (heads, length, length).
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    slopes += [2 ** (-4 * (2 * h + 1) / power) for h in range(heads - power)]
    place = torch.arange(length, device=device)
    apart = (place[:, None] - place).abs()
    return -torch.tensor(slopes, device=device)[:, None, None] * apart


class DocumentAttention(Dropping):
    """Self-attention of tokens (T, D) within their documents; with `asking`, only these tokens are queries."""

    drops = "attention"

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, documents: Documents, asking: Asking | None = None) -> Tensor:
        if asking is None:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        else:
            width = x.shape[-1]
            weight, bias = self.qkv.weight, cast(Tensor | None, self.qkv.bias)
            of_query, of_rest = (None, None) if bias is None else (bias[:width], bias[width:])
            q = F.linear(x[asking.index], weight[:width], of_query).view(len(asking.index), self.heads, -1)
            k, v = F.linear(x, weight[width:], of_rest).view(x.shape[0], 2, self.heads, -1).unbind(1)
        return cast(Tensor, self.out(documents.attention(q, k, v, asking, self.rate_now).flatten(1)))


class FeedForward(Dropping):
    """The feed-forward part of a block (..., D): two linear layers with a GELU in between.

    Dropout is applied to the output, as in BERT, or, if gated, between the layers, as in MosaicBERT.

    Args:
        width: Number of channels.
        hidden: Number of hidden channels.
        gated: Whether the first layer also computes a gate, gelu(gate) * value, without a bias (Shazeer, 2020).
        bias: Whether the layers have biases.
    """

    def __init__(self, width: int, hidden: int, *, gated: bool, bias: bool = True) -> None:
        super().__init__()
        self.gated = gated
        self.up = nn.Linear(width, 2 * hidden if gated else hidden, bias=bias and not gated)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return self.dropped(self.down(F.gelu(self.up(x))))
        gate, value = self.up(x).chunk(2, dim=-1)
        return cast(Tensor, self.down(self.dropped(F.gelu(gate) * value)))


class TokenBlock(Dropping):
    """A transformer block over documents (T, D). With `asking`, only these tokens are computed, from all of their
    documents, and the result is (K, D).
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, norm: NormAt, gated: bool, eps: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.post = norm == "post"
        self.attention = DocumentAttention(width, heads, bias=bias)
        self.norm1: nn.Module = nn.LayerNorm(width, eps=eps, bias=bias)
        self.mlp = FeedForward(width, hidden, gated=gated, bias=bias)
        self.norm2 = nn.LayerNorm(width, eps=eps, bias=bias)

    def forward(self, x: Tensor, documents: Documents, asking: Asking | None = None) -> Tensor:
        own = x if asking is None else x[asking.index]
        if self.post:
            x = self.norm1(own + self.dropped(self.attention(x, documents, asking)))
            return cast(Tensor, self.norm2(x + self.mlp(x)))
        x = own + self.dropped(self.attention(self.norm1(x), documents, asking))
        return cast(Tensor, x + self.mlp(self.norm2(x)))
