"""Batches of texts, with and without padding."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.masks.text.replace import TextMaskBatch
from maskstream.pipelines.stream.batch import Batch, Movable
from maskstream.pipelines.stream.kept import empty
from maskstream.shards.arrays import Int32s, Int64s, UInt8s


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpadded(Movable):
    """The T tokens of a batch without padding, document after document, as variable-length attention kernels expect
    them.

    Attributes:
        tokens: int32 (T,): token ids.
        index: int64 (T,): positions in the padded rows, flattened to (B * L,), ascending.
        positions: int32 (T,): positions within the document, from 0.
        cu_seqlens: int32 (S + 1,): document s has the tokens [cu_seqlens[s], cu_seqlens[s + 1]).
        longest: Length of the longest document.
    """

    tokens: Tensor
    index: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    longest: int

    def gathered(self, rows: Tensor) -> Tensor:
        """Gather the values of the T tokens from `rows` (B, L, ...): (T, ...)."""
        return rows.flatten(0, 1).index_select(0, self.index)


def unpadded(tokens: Int32s, documents: Int32s) -> tuple[Tensor, Unpadded]:
    """Compute `lengths` of a `TextBatch` and the unpadded form of its rows from tokens and documents, int32 (B, L)."""
    from .kernels import count_tokens, unpad

    tokens, documents = np.ascontiguousarray(tokens), np.ascontiguousarray(documents)
    lengths = np.empty(len(documents), np.int32)
    total, found = count_tokens(documents, lengths)
    ids, index, positions = empty((total,), np.int32), empty((total,), np.int64), empty((total,), np.int32)
    edges = np.empty(found + 1, np.int32)
    longest = unpad(tokens, documents, ids, index, positions, edges)
    whole = Unpadded(
        tokens=torch.from_numpy(ids),
        index=torch.from_numpy(index),
        positions=torch.from_numpy(positions),
        cu_seqlens=torch.from_numpy(edges),
        longest=longest,
    )
    return torch.from_numpy(lengths), whole


@dataclass(frozen=True, kw_only=True, slots=True)
class TextBatch(Batch):
    """A batch of B rows of L tokens, (B, L); a row holds one document, or several concatenated ones.

    See `Batch` for shared fields. A packed row has the key of its first document and the label -1.

    Attributes:
        tokens: int32 (B, L): token ids, padded at the end.
        lengths: int32 (B,): number of tokens in each row that are not padding.
        documents: int32 (B, L): number of each token's document within its row, from 0, ascending; -1 for padding.
        words: int32 (B, L): number of each token's word within its row, ascending; -1 for special tokens and padding.
        classes: uint8 (B, L): class of each token's word, such as its part of speech, `NO_CLASS` for none; None if the
            split has no classes.
        mask: Masks on the (token,) grid of length L, or None if the loader has no mask.
        unpadded: The same tokens without padding.
    """

    tokens: Tensor
    lengths: Tensor
    documents: Tensor
    words: Tensor
    classes: Tensor | None
    mask: TextMaskBatch | None
    unpadded: Unpadded

    @property
    def valid(self) -> Tensor:
        """Tokens that are not padding: bool (B, L), a key padding mask for attention (True = attend)."""
        return self.documents >= 0

    @property
    def inputs(self) -> Tensor:
        """Ids that an encoder reads, int64 (B, L), with the replacements of `masks.Replace` if the mask has them."""
        replaced = None if self.mask is None else self.mask.tokens
        return self.tokens.long() if replaced is None else replaced


N_CLASSES, NO_CLASS = 17, 255
"""Number of classes (universal parts of speech), and the class of tokens without one."""


def build_text_batch(
    *,
    tokens: Int32s,
    documents: Int32s,
    words: Int32s,
    key: list[str],
    label: Int64s | None = None,
    classes: UInt8s | None = None,
    mask: TextMaskBatch | None = None,
) -> TextBatch:
    """Build a batch from rows in host memory and compute derived fields; arguments are fields of `TextBatch`."""
    lengths, whole = unpadded(tokens, documents)
    return TextBatch(
        tokens=torch.from_numpy(tokens),
        lengths=lengths,
        documents=torch.from_numpy(documents),
        words=torch.from_numpy(words),
        classes=None if classes is None else torch.from_numpy(classes),
        mask=mask,
        unpadded=whole,
        label=torch.from_numpy(np.full(len(key), -1, np.int64) if label is None else label),
        key=key,
    )
