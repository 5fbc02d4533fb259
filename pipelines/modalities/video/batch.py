"""Batches of clips: as pixels, as pixels of selected tokens or, on the host, as YUV planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import HALF_CHROMA, CropPlanes, allocate_planes, compute_colour_numbers
from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import Draw, MaskBatch
from maskstream.pipelines.masks.core import Maps
from maskstream.pipelines.stream.batch import Batch, Movable
from maskstream.pipelines.stream.kept import empty
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.tensors import torch, wrap_tensor
from maskstream.shards.arrays import Int64s, UInt8s

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneClip:
    """Size of a clip's luma and chroma planes, its flip, and whether chroma is resized to half the output
    (`HALF_CHROMA`).
    """

    luma: tuple[int, int]
    chroma: tuple[int, int]
    flip: bool
    half: bool

    @classmethod
    def of(cls, clip: CropPlanes) -> PlaneClip:
        """Describe a clip."""
        luma, chroma = clip.luma.shape, clip.chroma.shape
        half = (clip.standard, clip.full_range) == HALF_CHROMA
        return cls(luma=(luma[1], luma[2]), chroma=(chroma[2], chroma[3]), flip=clip.flip, half=half)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneBatch(Movable):
    """Crops of B clips, padded to the largest: luma uint8 (B, T, H, W), chroma uint8 (B, T, 2, ceil(H / 2), ceil(W /
    2)).
    """

    luma: Tensor
    """uint8 (B, T, H, W)."""
    chroma: Tensor
    """uint8 (B, T, 2, ceil(H / 2), ceil(W / 2))."""
    clips: tuple[PlaneClip, ...]
    """Description of each clip, on the host."""
    colours: Tensor
    """int32 (B, 6): see `compute_colour_numbers`."""

    @classmethod
    def empty(cls, rows: int, frames: int, crops: Sequence[Crop]) -> PlaneBatch:
        """Allocate memory for clips with these crops; clips are written into it, so joining copies nothing."""
        height, width = max(crop.height for crop in crops), max(crop.width for crop in crops)
        luma, chroma = allocate_planes((rows, frames), height, width, empty)
        colours = wrap_tensor(np.empty((rows, 6), np.int32))
        return cls(luma=wrap_tensor(luma), chroma=wrap_tensor(chroma), clips=(), colours=colours)

    def room(self, row: int, crop: Crop) -> tuple[UInt8s, UInt8s]:
        """Return the memory for a clip's luma (T, h, w) and chroma (T, 2, ceil(h / 2), ceil(w / 2)).

        A replacement sample may have a larger crop than was allocated; separate memory is then used for it.
        """
        luma, chroma = self.luma.numpy(), self.chroma.numpy()
        if crop.height > luma.shape[2] or crop.width > luma.shape[3]:
            return allocate_planes((luma.shape[1],), crop.height, crop.width)
        down, across = -(-crop.height // 2), -(-crop.width // 2)
        return luma[row, :, : crop.height, : crop.width], chroma[row, :, :, :down, :across]

    def of_clips(self, clips: Sequence[CropPlanes]) -> PlaneBatch:
        """Build the batch of the clips written here, one per row; copies if one has separate memory."""
        luma, chroma = self.luma.numpy(), self.chroma.numpy()
        if not all(np.may_share_memory(clip.luma, luma) for clip in clips):
            luma, chroma = _join_planes(clips)
        return _build_planes_batch(luma, chroma, clips)

    @classmethod
    def of(cls, clips: Sequence[CropPlanes]) -> PlaneBatch:
        """Copy clips of equal length into a batch."""
        return _build_planes_batch(*_join_planes(clips), clips)


def _build_planes_batch(luma: UInt8s, chroma: UInt8s, clips: Sequence[CropPlanes]) -> PlaneBatch:
    """Build a batch from padded planes and the clips in them."""
    colours = np.stack([compute_colour_numbers(clip.standard, clip.full_range) for clip in clips])
    return PlaneBatch(
        luma=wrap_tensor(luma),
        chroma=wrap_tensor(chroma),
        clips=tuple(map(PlaneClip.of, clips)),
        colours=wrap_tensor(colours.astype(np.int32)),
    )


def _join_planes(clips: Sequence[CropPlanes]) -> tuple[UInt8s, UInt8s]:
    """Copy clips into luma (B, T, H, W) and chroma (B, T, 2, ceil(H / 2), ceil(W / 2))."""
    frames = len(clips[0].luma)
    height, width = (max(clip.luma.shape[axis] for clip in clips) for axis in (1, 2))
    luma, chroma = allocate_planes((len(clips), frames), height, width, empty)
    for clip, y, uv in zip(clips, luma, chroma, strict=True):
        y[:, : clip.luma.shape[1], : clip.luma.shape[2]] = clip.luma
        uv[..., : clip.chroma.shape[2], : clip.chroma.shape[3]] = clip.chroma
    return luma, chroma


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    """Convert pixels uint8 (..., H, W, 3) to floats (..., 3, H, W), scaled to [0, 1] and normalised by `mean` and
    `std`.
    """
    device, (*before, height, width, channels) = pixels.device, pixels.shape
    m, s = (torch.tensor(of, dtype=dtype, device=device).view(channels, 1, 1) for of in (mean, std))
    shape = (*before, channels, height, width)
    if device.type != "cpu":
        out = torch.empty(shape, dtype=dtype, device=device)
        return out.copy_(pixels.movedim(-1, -3)).div_(255.0).sub_(m).div_(s)
    from maskstream.pipelines.decode.pixels import look_up, normalise

    of = pixels.contiguous().view(-1, height, width * channels).numpy()
    values = empty(shape, f"i{dtype.itemsize}")
    rows = values.reshape(-1, *shape[-3:])
    if dtype == torch.float32:
        normalise(of, m.view(-1).numpy(), s.view(-1).numpy(), rows.view(np.float32))
    else:  # each of the 256 intensities is normalised once, and results are looked up
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        levels = torch.arange(256).to(dtype).expand(channels, 1, 256).div(255.0).sub_(m).div_(s)
        look_up(of, levels.view(bits).view(channels, 256).numpy(), rows)
    return torch.from_numpy(values).view(dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch(Movable):
    """Pixels of selected tokens of B clips, uint8 (B, K, tubelet * p * p * 3).

    Attributes:
        pixels: uint8 (B, K, tubelet * p * p * 3): RGB in the order (frame, y, x, channel).
        index: int64 (B, K): sorted token numbers in the grid of the masks.
        n_real: int64 (B,): number of valid tokens in each row if counts differ (masks.Padded). Padding is black with
            index 0. None if all are valid.
        targets: True if the tokens to reconstruct are included.
    """

    pixels: Tensor
    index: Tensor
    n_real: Tensor | None = None
    targets: bool = False

    @property
    def real(self) -> Tensor:
        """Valid tokens, bool (B, K)."""
        places = torch.arange(self.index.shape[1], device=self.index.device)
        return (places < (len(places) if self.n_real is None else self.n_real[:, None])).expand(self.index.shape)

    def whole(self, n_tokens: int) -> Tensor:
        """Return the pixels of all tokens, uint8 (B, n_tokens, tubelet * p * p * 3); unselected tokens are black."""
        made = self.pixels.new_zeros(len(self.pixels), n_tokens + 1, self.pixels.shape[2])
        index = torch.where(self.real, self.index, n_tokens)  # sort padding behind all other tokens
        return made.scatter_(1, index[..., None].expand(self.pixels.shape), self.pixels)[:, :n_tokens]

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Convert the tokens to floats of the same shape, scaled to [0, 1] and normalised by `mean` and `std`
        (ImageNet's).
        """
        dtype = dtype or torch.float32
        m, s = (torch.tensor(of, dtype=dtype, device=self.pixels.device) for of in (mean, std))
        clips, count, values = self.pixels.shape
        return self.pixels.view(clips, count, values // 3, 3).to(dtype).div_(255.0).sub_(m).div_(s).flatten(2)

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Concatenate batches, padding to the widest."""
        most = max(part.index.shape[1] for part in parts)
        if all(part.n_real is None and part.index.shape[1] == most for part in parts):
            return super(TokenBatch, cls).concatenated(parts)
        counts = [part.real.sum(dim=1) for part in parts]
        return cls(
            pixels=torch.cat(
                [torch.nn.functional.pad(part.pixels, (0, 0, 0, most - part.pixels.shape[1])) for part in parts]
            ),
            index=torch.cat([torch.nn.functional.pad(part.index, (0, most - part.index.shape[1])) for part in parts]),
            n_real=torch.cat(counts),
            targets=all(part.targets for part in parts),
        )


Output = Literal["rgb", "yuv", "tokens", "tokens+targets"]
"""Output of the sampler: RGB clips, YUV planes that a device transform converts to RGB, or only some tokens."""
OutputChoice = Literal["auto", "rgb", "yuv", "tokens", "tokens+targets"]
"""Output of the sampler; "auto" depends on the device."""
TOKEN_OUTPUTS = ("tokens", "tokens+targets")
"""Outputs with tokens only: the visible ones, or also the ones to reconstruct."""


def list_chosen_tokens(maps: Maps, output: str) -> Int64s:
    """Return the sorted numbers of the tokens of a view to output, int64 (K,)."""
    made = ~maps.hidden
    if output == TOKEN_OUTPUTS[1]:
        made |= maps.hidden if maps.target is None else maps.target
    return np.flatnonzero(made)


class ViewTokens(NamedTuple):
    """Tokens of a view: their numbers, int64 (K,), and pixels, uint8 (K, tubelet, p, p, 3)."""

    numbers: Int64s
    pixels: UInt8s


class TokenRoom:
    """Memory for the tokens of a batch of `rows` rows, each token of shape (tubelet, p, p, 3).

    It is allocated when the first row's number of tokens is known. A row with a different number uses separate memory,
    and joining then copies.
    """

    def __init__(self, rows: int, shape: tuple[int, ...]) -> None:
        self._rows, self._shape = rows, shape
        self._lock, self._whole = Lock(), np.empty((0, 0, *shape), np.uint8)

    def of(self, row: int, count: int) -> UInt8s:
        """Return memory for the tokens of a row, uint8 (count, tubelet, p, p, 3)."""
        with self._lock:
            if not len(self._whole):
                self._whole = empty((self._rows, count, *self._shape), np.uint8)
        if self._whole.shape[1] == count:
            own: UInt8s = self._whole[row]
            return own
        return np.empty((count, *self._shape), np.uint8)

    def joined(self, tokens: Sequence[ViewTokens], output: str) -> TokenBatch:
        """Build the batch from the tokens of all rows; `output` as in `list_chosen_tokens`."""
        counts = [len(one.numbers) for one in tokens]
        most, whole, index = max(counts), self._whole, np.zeros((len(tokens), max(counts)), np.int64)
        moved = whole.shape[:2] != (len(tokens), most) or min(counts) < most
        if moved:
            whole = empty((len(tokens), most, *self._shape), np.uint8)
        for row, (one, count) in enumerate(zip(tokens, counts, strict=True)):
            index[row, :count] = one.numbers
            if moved:
                whole[row, :count], whole[row, count:] = one.pixels, 0
        return TokenBatch(
            pixels=wrap_tensor(whole.reshape(len(tokens), most, prod(self._shape))),
            index=wrap_tensor(index),
            n_real=wrap_tensor(np.array(counts, np.int64)) if min(counts) < most else None,
            targets=output == TOKEN_OUTPUTS[1],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoBatch(Batch):
    """A batch of clips, uint8 (B, T, H, W, 3); see `Batch` for the fields that all modalities share.

    With several components (cameras), the fields describe the clips of the first one; `cameras` has all of them.

    Attributes:
        video: uint8 (B, T, H, W, 3): RGB frames; (B, T, 0, 0, 3) with output="tokens".
        mask: Masks on the (T/pt, H/ph, W/pw) token grid in (t h w) order; None if the loader has no mask.
        flow: Optical flow, or None.
        pts_s: float64 (B, T): time of each frame in seconds from the start of its video.
        draws: In a host batch, the draws of masks that a device transform computes, one per clip; empty in a loader's
            batches.
        planes: In a host batch with output="yuv", the pixels as YUV planes, from which a device transform computes
            `video`; else None.
        tokens: Pixels of the selected tokens with output="tokens"; else None.
        room: In a host batch that is not joined yet, the memory for tokens.
        camera: Component of the clips in this batch if there are several.
        others: Clips of the same samples and instants from the other components, by name; use `cameras`.
    """

    video: Tensor
    mask: MaskBatch | None
    flow: Flow | None
    pts_s: Tensor
    draws: tuple[Draw, ...] = ()
    planes: PlaneBatch | None = None
    tokens: TokenBatch | None = None
    room: TokenRoom | None = None
    camera: str = ""
    others: dict[str, VideoBatch] = field(default_factory=dict)

    @property
    def cameras(self) -> dict[str, VideoBatch]:
        """Clips of each camera by component name, in the order of `component`.

        Each is a separate batch with `video`, `mask`, `flow` and `pts_s`. Empty if `component` does not list several.
        """
        if not self.camera:
            return {}
        others = {name: replace(one, fields=self.fields) for name, one in self.others.items()}
        return {self.camera: replace(self, camera="", others={}), **others}

    def weighted(self, weight: Tensor) -> Self:
        """Multiply the target weights of all cameras' masks by `weight`, float32 (B / views,)."""
        others = {name: one.weighted(weight) for name, one in self.others.items()}
        return replace(Batch.weighted(self, weight), others=others)

    def scene_cuts(self) -> int:
        """Number of scene cuts in the clips; 0 without flow."""
        return 0 if self.flow is None else int(self.flow.cuts.sum())

    def count_in(self, stats: Stats) -> None:
        """Add scene cuts, flow cells, cells with a vector and their confidence to the statistics."""
        for other in self.others.values():
            other.count_in(stats)
        if self.flow is None:
            return
        stats.cuts += self.scene_cuts()
        stats.flow_cells += self.flow.valid.numel()
        stats.valid_cells += int(self.flow.valid.sum())
        if self.flow.confidence is not None:
            stats.judged_cells += self.flow.confidence.numel()
            stats.confidence += float(self.flow.confidence.sum())

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Convert the clips to float (B, T, 3, H, W), scaled to [0, 1] and normalised by `mean` and
        `std` (ImageNet's).
        """
        return normalised(self.video, mean, std, dtype or torch.float32)
