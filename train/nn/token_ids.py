"""Token ids of texts as the vectors that an encoder reads, a batch's hidden tokens, and the head that predicts ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks import TextMaskBatch
from maskstream.pipelines.modalities.text.batch import TextBatch

NO_MASK = "a text model trains on masked tokens, and the batch has no mask; give the loader a mask"
NO_IDS = (
    "the batch's mask has no token ids, so the encoder would read what it has to predict; put the mask into "
    "masks.Replace(mask=..., mask_id=..., vocabulary=...)"
)


class TokenIds(nn.Module):
    """The embeddings of token ids: a table of ids, with `learned` one of places in the document, and a layer norm."""

    def __init__(self, vocabulary: int, width: int, length: int, *, learned: bool, eps: float) -> None:
        super().__init__()
        self.vocabulary, self.length = vocabulary, length
        self.ids = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width) if learned else None
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        """The vectors (..., D) of ids int (...), at `places` int (...) of their documents.

        ValueError, on a CPU, for ids that the table does not have.
        """
        if not ids.is_cuda and len(ids) and int(ids.max()) >= self.vocabulary:
            raise ValueError(
                f"the model has the ids 0 to {self.vocabulary - 1}, got {int(ids.max())}; set model.vocabulary to that "
                "of the split's tokenizer or more"
            )
        return self.placed(self.ids(ids.long()), places)

    def placed(self, x: Tensor, places: Tensor) -> Tensor:
        """Rows of the table (..., D), with what their places add, after the layer norm."""
        return cast(Tensor, self.norm(x if self.places is None else x + self.places(places.long())))


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenTokens:
    """The K hidden tokens of a batch that count in the loss, on a CUDA device also padding of weight 0.

    place: int64 (K,), their places among the batch's tokens without padding. label: int64 (K,), their true ids. weight:
    float32 (K,). index: int64 (K,), their places in the padded rows, flattened.
    """

    place: Tensor
    label: Tensor
    weight: Tensor
    index: Tensor


def mask_of(batch: TextBatch) -> TextMaskBatch:
    """The masks of a batch, with the ids that the encoder reads. ValueError where it has none."""
    if batch.mask is None:
        raise ValueError(NO_MASK)
    if not isinstance(batch.mask, TextMaskBatch) or batch.mask.tokens is None:
        raise ValueError(NO_IDS)
    return batch.mask


def hidden_tokens(batch: TextBatch) -> HiddenTokens:
    """The hidden tokens of a batch; ValueError where it has no mask with ids.

    A CPU drops the padding of rows with fewer hidden tokens. A CUDA device keeps it, so no shape depends on values.
    """
    mask = mask_of(batch)
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
    """Logits of token ids (..., vocabulary) of tokens (..., D): a linear layer, a GELU, a layer norm, and the table of
    the ids' embeddings (vocabulary, D), which is given, with a bias of its own (Devlin et al., 2019, and their code).
    """

    def __init__(self, width: int, vocabulary: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), table, self.bias)
