"""Converters from packed batches to the input formats of other libraries' models.

Use as `loader.as_dataset(siglip2)`, or `naflex`, or `qwen_vl`.
"""

from typing import TypedDict

import torch
from torch import Tensor

from .batch import IMAGE, KINDS, SOUND, PackedBatch

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class NaFlexInputs(TypedDict):
    """patches: float (S, L, p * p * 3). patch_coord: int64 (S, L, 2), y and x. patch_valid: bool (S, L)."""

    patches: Tensor
    patch_coord: Tensor
    patch_valid: Tensor


class SigLip2Inputs(TypedDict):
    """pixel_values: float (S, L, p * p * 3). pixel_attention_mask: int32 (S, L). spatial_shapes: int64 (S, 2)."""

    pixel_values: Tensor
    pixel_attention_mask: Tensor
    spatial_shapes: Tensor


class QwenVlInputs(TypedDict):
    """pixel_values: float (T, 3 * tubelet * p * p). image_grid_thw: int64 (S, 3)."""

    pixel_values: Tensor
    image_grid_thw: Tensor


def naflex(
    batch: PackedBatch,
    *,
    length: int | None = None,
    mean: tuple[float, ...] = HALF,
    std: tuple[float, ...] = HALF,
) -> NaFlexInputs:
    """Convert a batch to the input dict of NaFlex models of timm and open_clip.

    Images are padded with zeros to `length` tokens, by default to the largest image.

    Raises:
        ValueError: An image has more tokens, or tokens have several time steps.
    """
    valid = _mark_valid(batch, length)
    return NaFlexInputs(
        patches=_pad_values(batch.pixel_values(mean, std), valid),
        patch_coord=_pad_values(batch.place[:, 1:].long(), valid),
        patch_valid=valid,
    )


def siglip2(
    batch: PackedBatch,
    *,
    length: int | None = None,
    mean: tuple[float, ...] = HALF,
    std: tuple[float, ...] = HALF,
) -> SigLip2Inputs:
    """Convert a batch to the output of SigLIP 2's image processor in transformers, padded as in `naflex`.

    The processor itself pads to max_num_patches.
    """
    valid = _mark_valid(batch, length)
    return SigLip2Inputs(
        pixel_values=_pad_values(batch.pixel_values(mean, std), valid),
        pixel_attention_mask=valid.int(),
        spatial_shapes=batch.grid_thw[:, 1:],
    )


def qwen_vl(
    batch: PackedBatch,
    *,
    merge: int = 2,
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
) -> QwenVlInputs:
    """Convert a batch to the output of the image processors of Qwen2-VL and Qwen2.5-VL in transformers.

    The merge x merge tokens that the model merges are adjacent. The video processors return the same values as
    pixel_values_videos and video_grid_thw.

    Raises:
        ValueError: Rows or columns of patches are not multiples of `merge`, or the batch contains audio.
    """
    _check_kinds(batch, "pictures and clips", (SOUND,))
    height, width = (batch.grid_thw[:, axis] for axis in (1, 2))
    if bool(((height % merge != 0) | (width % merge != 0)).any()):
        raise ValueError(
            f"Qwen-VL merges {merge} x {merge} patches, but an image has a number of rows or columns that is "
            f"not divisible by {merge}; open the loader with Native(multiple={merge})"
        )
    counts = batch.cu_seqlens.diff().long()
    columns = width.repeat_interleave(counts)
    rows = height.repeat_interleave(counts)
    t, y, x = (batch.place[:, axis].long() for axis in range(3))
    block = (y // merge) * (columns // merge) + x // merge
    first = batch.cu_seqlens[:-1].long().repeat_interleave(counts) + t * rows * columns
    to = first + (block * merge + y % merge) * merge + x % merge
    pixels = batch.pixel_values(mean, std)
    side = batch.patch
    pixels = pixels.view(len(pixels), -1, side, side, 3).permute(0, 4, 1, 2, 3).flatten(1)
    return QwenVlInputs(pixel_values=torch.empty_like(pixels).index_copy_(0, to, pixels), image_grid_thw=batch.grid_thw)


def _mark_valid(batch: PackedBatch, length: int | None) -> Tensor:
    """Mark which of the L positions of each sample contain tokens: bool (S, L)."""
    _check_kinds(batch, "pictures", tuple(kind for kind in range(len(KINDS)) if kind != IMAGE))
    if batch.tubelet != 1:
        raise ValueError(
            f"these models expect images, but tokens have {batch.tubelet} time steps; use Native(tubelet=1)"
        )
    counts = batch.cu_seqlens.diff()
    most = int(counts.max())
    if length is not None and most > length:
        raise ValueError(f"length={length}: an image has {most} tokens; raise length, or lower `most` in Native")
    return torch.arange(length or most, device=counts.device) < counts[:, None]


def _check_kinds(batch: PackedBatch, taken: str, others: tuple[int, ...]) -> None:
    """Raise ValueError for a batch with samples of the kinds `others`."""
    if found := [KINDS[kind] for kind in others if bool((batch.kind == kind).any())]:
        raise ValueError(f"these models accept {taken}, but the batch has a sample of kind {found[0]!r}")


def _pad_values(values: Tensor, valid: Tensor) -> Tensor:
    """Place the values of all tokens, (T, n), at the valid positions of (S, L, n), with zeros elsewhere."""
    padded = values.new_zeros((*valid.shape, values.shape[1]))
    padded[valid] = values
    return padded
