"""The masks of a batch of texts, with token ids, a decoder's attention and the version of the feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.masks.core.base import Maps
from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.masks.core.draw import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class TextMaskBatch(MaskBatch):
    """A MaskBatch of texts.

    tokens: int64 (B, N), the ids that the encoder reads, replaced where masked (masks.Replace). attend: bool (B, N, N),
    which tokens each position of a decoder attends to (masks.DecoderRows). version: int64 (B,), the version of the
    feedback that a mask was drawn with (masks.ByClass). Each is None where the mask does not bring it.
    """

    tokens: Tensor | None = None
    attend: Tensor | None = None
    version: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextMaps(Maps):
    """The mask of one text: tokens int64 (N,), attend bool (N, N) and version are a row of TextMaskBatch."""

    tokens: npt.NDArray[np.int64] | None = None
    attend: npt.NDArray[np.bool_] | None = None
    version: int | None = None

    @classmethod
    def of(cls, maps: Maps) -> TextMaps:
        """The same maps as TextMaps."""
        if isinstance(maps, TextMaps):
            return maps
        return cls(hidden=maps.hidden, target=maps.target, mask_token=maps.mask_token)

    @classmethod
    def batched(cls, maps: Sequence[Self], grid: TokenGrid, *, ragged: int | None = None) -> TextMaskBatch:
        """The TextMaskBatch of the maps of a batch's samples; `ragged` as in `mask_batch`."""
        batch = super(TextMaps, cls).batched(maps, grid, ragged=ragged)
        return TextMaskBatch(
            grid=batch.grid,
            masked=batch.masked,
            visible=batch.visible,
            target=batch.target,
            weight=batch.weight,
            n_visible=batch.n_visible,
            n_target=batch.n_target,
            mask_token=batch.mask_token,
            tokens=_stacked([m.tokens for m in maps], "tokens"),
            attend=_stacked([m.attend for m in maps], "attend"),
            version=_stacked([m.version for m in maps], "version"),
        )


def _stacked(values: Sequence[npt.NDArray[np.int64] | npt.NDArray[np.bool_] | int | None], name: str) -> Tensor | None:
    """One tensor of the values of a batch's samples; None where no sample has one."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    if len(given) < len(values):
        raise ValueError(f"all texts of a batch have {name} or none has, got {len(given)} of {len(values)}")
    return torch.from_numpy(np.array(given))
