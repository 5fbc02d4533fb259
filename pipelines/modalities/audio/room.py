"""The memory of a batch: its samples write into it where they are made, so that nothing is copied to join them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...masks.core.batch import MaskBatch
from ...stream.stats import Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What is ready before sample `index` is made: memory for its views, and their masks.

    waveform: float32 (views, C, n). spectrogram: float32 (views, T, F), None where it is made elsewhere. mask: of the
    views, None without masks. stats: what drawing them took.
    """

    index: int
    waveform: Tensor
    spectrogram: Tensor | None
    mask: MaskBatch | None
    stats: Stats


def together(parts: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the first axis; without a copy where they are the parts of one in turn."""
    first = parts[0]
    stop, memory = first.storage_offset(), first.untyped_storage().data_ptr()
    for part in parts:
        own = part.untyped_storage().data_ptr()
        if own != memory or part.storage_offset() != stop or not part.is_contiguous():
            return torch.cat(list(parts))
        stop += part.numel()
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def rows_of(mask: MaskBatch, first: int, stop: int) -> MaskBatch:
    """The masks [first, stop) of a batch."""
    return mask.rows(slice(first, stop))
