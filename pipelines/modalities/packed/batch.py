"""Batches of packed rows: concatenated tokens of samples of any shape, and their masks."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.stream.batch import Batch, Movable
from maskstream.pipelines.stream.stats import Stats

KINDS = ("image", "video", "sound")
"""Kinds of samples, by their number in `PackedBatch.kind`."""
IMAGE, VIDEO, SOUND = range(len(KINDS))


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedMask(Movable):
    """Masks of S samples, with tokens numbered through all samples of the batch, 0 to T - 1.

    `masked` is bool (T,). The visible tokens of sample s are visible[cu_visible[s] : cu_visible[s + 1]]; targets are
    indexed by `cu_target` in the same way.

    Attributes:
        masked: bool (T,): True for tokens hidden from the encoder.
        visible: int64 (V,): sorted visible tokens.
        target: int64 (M,): tokens that the decoder reconstructs, sample by sample.
        weight: float32 (M,): loss weight of each target; 0 if the encoder saw it, and for padding.
        cu_visible: int32 (S + 1,): boundaries of the samples in `visible`.
        cu_target: int32 (S + 1,): boundaries of the samples in `target`.
        longest: Largest numbers of visible tokens and of targets of a sample.
    """

    masked: Tensor
    visible: Tensor
    target: Tensor
    weight: Tensor
    cu_visible: Tensor
    cu_target: Tensor
    longest: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch(Batch):
    """S samples in R rows, with T concatenated tokens: uint8 (P, tubelet * p * p * 3) pixels, and spectrogram patches.

    `tokens` and `sounds` both keep the order of the T tokens (see `is_sound`). `key`, `label`, `fields` and `weight`
    refer to samples, as in `Batch`.

    Attributes:
        tokens: uint8 (P, tubelet * p * p * 3): RGB pixels of the tokens of images and clips, in the order (frame, y, x,
            channel). Without audio, P is T.
        sounds: float32 (T - P, p * p): normalised values of the tokens of audio, in the order (frame, bin); None if the
            loader has no audio.
        kind: int64 (S,): number in `KINDS` of each sample.
        cu_seqlens: int32 (S + 1,): sample s has the tokens cu_seqlens[s] to cu_seqlens[s + 1] - 1, in (t h w) order.
        cu_rows: int32 (R + 1,): row r has the samples cu_rows[r] to cu_rows[r + 1] - 1.
        grid_thw: int64 (S, 3): tokens of each sample along t, h and w; for audio along time and frequency, and 1.
        place: int32 (T, 3): position of each token along these axes.
        mask: Masks of the samples, or None.
        patch: Side of a token in pixels (frames and bins of audio).
        tubelet: Time steps of a token.
        row_tokens: Capacity of a row in visible tokens.
        longest: Largest number of tokens of a sample.
    """

    tokens: Tensor
    sounds: Tensor | None = None
    kind: Tensor
    cu_seqlens: Tensor
    cu_rows: Tensor
    grid_thw: Tensor
    place: Tensor
    mask: PackedMask | None
    patch: int
    tubelet: int
    row_tokens: int
    longest: int

    @property
    def n_visible(self) -> int:
        """Number of visible tokens in all rows."""
        return len(self.place) if self.mask is None else len(self.mask.visible)

    @property
    def error_rows(self) -> Tensor | None:
        """Sample of each target, int64 (M,)."""
        if self.mask is None:
            return None
        counts = self.mask.cu_target.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    @property
    def is_sound(self) -> Tensor:
        """Tokens of audio, bool (T,): these are the rows of `sounds`, and all others the rows of `tokens`."""
        return (self.kind == SOUND).repeat_interleave(self.cu_seqlens.diff())

    @property
    def empty(self) -> float:
        """Unused fraction of the rows' capacity."""
        return 1 - self.n_visible / (self.row_tokens * (len(self.cu_rows) - 1))

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Convert pixels to floats (P, n), scaled to [0, 1] and normalised by `mean` and `std` (ImageNet's)."""
        m, s = (torch.tensor(values, dtype=dtype, device=self.tokens.device) for values in (mean, std))
        pixels = self.tokens.view(len(self.tokens), self.tokens.shape[1] // 3, 3).to(dtype)
        return pixels.div_(255.0).sub_(m).div_(s).flatten(1)

    def count_in(self, stats: Stats) -> None:
        stats.row_tokens += self.row_tokens * (len(self.cu_rows) - 1)
        stats.visible_tokens += self.n_visible

    def weighted(self, weight: Tensor) -> Self:
        """Multiply the weights of each row's samples and targets by `weight`, float32 (R,)."""
        own = weight.repeat_interleave(self.cu_rows.diff().to(weight.device))
        mask = self.mask
        if mask is not None:
            counts = mask.cu_target.diff().to(weight.device)
            mask = replace(mask, weight=mask.weight * own.repeat_interleave(counts).to(mask.weight.device))
        return replace(self, weight=own, mask=mask)

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Concatenate the rows of several batches."""
        made: dict[str, Any] = {
            "mask": _join_masks(parts),
            "cu_seqlens": _join_sums([part.cu_seqlens for part in parts]),
            "cu_rows": _join_sums([part.cu_rows for part in parts]),
            "key": [key for part in parts for key in part.key],
            "longest": max(part.longest for part in parts),
            **{name: getattr(parts[0], name) for name in ("patch", "tubelet", "row_tokens")},
            "fields": {name: _join_values([part.fields[name] for part in parts]) for name in parts[0].fields},
        }
        for name in {f.name for f in fields(cls)} - made.keys():
            given = [getattr(part, name) for part in parts]
            made[name] = None if given[0] is None else torch.cat(given)
        return cls(**made)


def _join_masks(parts: Sequence[PackedBatch]) -> PackedMask | None:
    masks = [part.mask for part in parts if part.mask is not None]
    if not masks:
        return None
    begins = torch.tensor([0, *(len(part.place) for part in parts)]).cumsum(0).tolist()
    return PackedMask(
        masked=torch.cat([mask.masked for mask in masks]),
        visible=torch.cat([mask.visible + begin for mask, begin in zip(masks, begins, strict=False)]),
        target=torch.cat([mask.target + begin for mask, begin in zip(masks, begins, strict=False)]),
        weight=torch.cat([mask.weight for mask in masks]),
        cu_visible=_join_sums([mask.cu_visible for mask in masks]),
        cu_target=_join_sums([mask.cu_target for mask in masks]),
        longest=(max(mask.longest[0] for mask in masks), max(mask.longest[1] for mask in masks)),
    )


def _join_sums(sums: Sequence[Tensor]) -> Tensor:
    """Concatenate running sums, offsetting each part by the end of the previous one."""
    counts = torch.cat([one.diff() for one in sums])
    return pad(counts.cumsum(0), (1, 0)).to(torch.int32)


def _join_values(parts: Sequence[Tensor | list[str]]) -> Tensor | list[str]:
    """Concatenate the values of a field."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    return torch.cat(tensors) if tensors else [value for part in parts for value in part if isinstance(value, str)]
