"""A batch of texts, padded and without padding."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.masks.text.replace import TextMaskBatch
from maskstream.pipelines.stream.batch import Batch, Movable
from maskstream.pipelines.stream.kept import empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpadded(Movable):
    """The T tokens of a batch without padding, document after document, as attention kernels of variable length take.

    tokens: int32 (T,), their ids. index: int64 (T,), their places in the padded rows, flattened to (B * L,), ascending.
    positions: int32 (T,), their places within the document, from 0. cu_seqlens: int32 (S + 1,); document s has the
    tokens [cu_seqlens[s], cu_seqlens[s + 1]). longest: the length of the longest document.
    """

    tokens: Tensor
    index: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    longest: int

    def gathered(self, rows: Tensor) -> Tensor:
        """What `rows` (B, L, ...) hold of the T tokens: (T, ...)."""
        return rows.flatten(0, 1).index_select(0, self.index)


def unpadded(tokens: npt.NDArray[np.int32], documents: npt.NDArray[np.int32]) -> tuple[Tensor, Unpadded]:
    """The `lengths` of a `TextBatch` and the unpadded form of its rows: tokens, documents int32 (B, L)."""
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
    """A batch of B rows of L tokens; a row holds one document, or several one behind the other.

    tokens: int32 (B, L), ids, padded at the end. lengths: int32 (B,), the tokens of each row that are not padding.
    documents: int32 (B, L), the number of a token's document within its row, from 0, ascending; -1 for padding. words:
    int32 (B, L), the number of a token's word within its row, ascending; -1 for special tokens and padding. classes:
    uint8 (B, L), the class of a token's word, such as its part of speech, `NO_CLASS` for none; None where the split
    has none. mask: over the token grid (token,) of L, or None if the loader has no mask. unpadded: the same tokens
    without padding. The rest is as in `Batch`; the key of a packed row is that of its first document, and its label is
    -1.
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
        """Which tokens are no padding: bool (B, L), a key padding mask for attention (True = attend)."""
        return self.documents >= 0

    @property
    def inputs(self) -> Tensor:
        """The ids that an encoder reads, int64 (B, L): with those of `masks.Replace` where the mask has them."""
        replaced = None if self.mask is None else self.mask.tokens
        return self.tokens.long() if replaced is None else replaced


N_CLASSES, NO_CLASS = 17, 255
"""The number of classes, that of the universal parts of speech, and the class of a token without one."""


def build_text_batch(
    *,
    tokens: npt.NDArray[np.int32],
    documents: npt.NDArray[np.int32],
    words: npt.NDArray[np.int32],
    key: list[str],
    label: npt.NDArray[np.int64] | None = None,
    classes: npt.NDArray[np.uint8] | None = None,
    mask: TextMaskBatch | None = None,
) -> TextBatch:
    """The batch of rows in host memory, with what follows from them; the arguments are the fields of `TextBatch`."""
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
