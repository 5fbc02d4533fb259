"""A batch of clips, as pixels, as the pixels of chosen tokens or, on the host, as YUV planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import HALF_CHROMA, CropPlanes, UInt8Array, allocate_planes, compute_colour_numbers
from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import Draw, MaskBatch
from maskstream.pipelines.masks.core import Maps
from maskstream.pipelines.stream.batch import Batch, Movable
from maskstream.pipelines.stream.kept import empty
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.tensors import torch, wrap_tensor

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneClip:
    """The height and width of a clip's luma and of its chroma, whether it is flipped, and whether its chroma is resized
    to half the output, as `HALF_CHROMA` says.
    """

    luma: tuple[int, int]
    chroma: tuple[int, int]
    flip: bool
    half: bool

    @classmethod
    def of(cls, clip: CropPlanes) -> PlaneClip:
        """The facts of a clip."""
        luma, chroma = clip.luma.shape, clip.chroma.shape
        half = (clip.standard, clip.full_range) == HALF_CHROMA
        return cls(luma=(luma[1], luma[2]), chroma=(chroma[2], chroma[3]), flip=clip.flip, half=half)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneBatch(Movable):
    """The crops of B clips, padded to the largest.

    luma: uint8 (B, T, H, W). chroma: uint8 (B, T, 2, ceil(H / 2), ceil(W / 2)). clips: one each, on the host. colours:
    int32 (B, 6), see `compute_colour_numbers`.
    """

    luma: Tensor
    chroma: Tensor
    clips: tuple[PlaneClip, ...]
    colours: Tensor

    @classmethod
    def empty(cls, rows: int, frames: int, crops: Sequence[Crop]) -> PlaneBatch:
        """Memory for clips of these crops, into which each clip is written, so that joining copies nothing."""
        height, width = max(crop.height for crop in crops), max(crop.width for crop in crops)
        luma, chroma = allocate_planes((rows, frames), height, width, empty)
        colours = wrap_tensor(np.empty((rows, 6), np.int32))
        return cls(luma=wrap_tensor(luma), chroma=wrap_tensor(chroma), clips=(), colours=colours)

    def room(self, row: int, crop: Crop) -> tuple[UInt8Array, UInt8Array]:
        """Where the luma (T, h, w) and the chroma (T, 2, ceil(h / 2), ceil(w / 2)) of a clip are written.

        A crop that replaces another may be larger than all of these; it has memory of its own.
        """
        luma, chroma = self.luma.numpy(), self.chroma.numpy()
        if crop.height > luma.shape[2] or crop.width > luma.shape[3]:
            return allocate_planes((luma.shape[1],), crop.height, crop.width)
        down, across = -(-crop.height // 2), -(-crop.width // 2)
        return luma[row, :, : crop.height, : crop.width], chroma[row, :, :, :down, :across]

    def of_clips(self, clips: Sequence[CropPlanes]) -> PlaneBatch:
        """The batch of the clips that were written here, one in each row; copied if one has memory of its own."""
        luma, chroma = self.luma.numpy(), self.chroma.numpy()
        if not all(np.may_share_memory(clip.luma, luma) for clip in clips):
            luma, chroma = _join_planes(clips)
        return _build_planes_batch(luma, chroma, clips)

    @classmethod
    def of(cls, clips: Sequence[CropPlanes]) -> PlaneBatch:
        """The batch of some clips of equal length, which are copied."""
        return _build_planes_batch(*_join_planes(clips), clips)


def _build_planes_batch(luma: UInt8Array, chroma: UInt8Array, clips: Sequence[CropPlanes]) -> PlaneBatch:
    """The batch of planes that hold these clips."""
    colours = np.stack([compute_colour_numbers(clip.standard, clip.full_range) for clip in clips])
    return PlaneBatch(
        luma=wrap_tensor(luma),
        chroma=wrap_tensor(chroma),
        clips=tuple(map(PlaneClip.of, clips)),
        colours=wrap_tensor(colours.astype(np.int32)),
    )


def _join_planes(clips: Sequence[CropPlanes]) -> tuple[UInt8Array, UInt8Array]:
    """Luma (B, T, H, W) and chroma (B, T, 2, ceil(H / 2), ceil(W / 2)) of clips, copied."""
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
    """Pixels uint8 (..., H, W, 3) as floats (..., 3, H, W), scaled to [0, 1] and normalised by `mean` and `std`."""
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
    else:  # a level has one of 256 values, so these are made once and their bits are copied
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        levels = torch.arange(256).to(dtype).expand(channels, 1, 256).div(255.0).sub_(m).div_(s)
        look_up(of, levels.view(bits).view(channels, 256).numpy(), rows)
    return torch.from_numpy(values).view(dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch(Movable):
    """The pixels of some tokens of B clips.

    pixels: uint8 (B, K, tubelet * p * p * 3), RGB, in the order (frame, y, x, channel). index: int64 (B, K), ascending,
    the tokens' numbers in the grid of the masks. n_real: int64 (B,), how many of a row's tokens are real, where counts
    differ (masks.Padded); the others are black and have the index 0. None means all. targets: whether those that are
    reconstructed are among them.
    """

    pixels: Tensor
    index: Tensor
    n_real: Tensor | None = None
    targets: bool = False

    @property
    def real(self) -> Tensor:
        """Which tokens are real, bool (B, K)."""
        places = torch.arange(self.index.shape[1], device=self.index.device)
        return (places < (len(places) if self.n_real is None else self.n_real[:, None])).expand(self.index.shape)

    def whole(self, n_tokens: int) -> Tensor:
        """The pixels of all tokens of the clips, uint8 (B, n_tokens, tubelet * p * p * 3), black where not made."""
        made = self.pixels.new_zeros(len(self.pixels), n_tokens + 1, self.pixels.shape[2])
        index = torch.where(self.real, self.index, n_tokens)  # what is not real goes behind all others
        return made.scatter_(1, index[..., None].expand(self.pixels.shape), self.pixels)[:, :n_tokens]

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The tokens as floats of the same shape, scaled to [0, 1] and normalised by `mean` and `std` (ImageNet's)."""
        dtype = dtype or torch.float32
        m, s = (torch.tensor(of, dtype=dtype, device=self.pixels.device) for of in (mean, std))
        clips, count, values = self.pixels.shape
        return self.pixels.view(clips, count, values // 3, 3).to(dtype).div_(255.0).sub_(m).div_(s).flatten(2)

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """One batch of all parts, padded to the widest."""
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
"""What a sampler makes: RGB clips, the planes of which a finish makes them, or only tokens of them."""
OutputChoice = Literal["auto", "rgb", "yuv", "tokens", "tokens+targets"]
"""The same, or what suits the device."""
TOKEN_OUTPUTS = ("tokens", "tokens+targets")
"""Of `Output`, those that make only tokens: the visible ones, or also those that are reconstructed."""


def list_chosen_tokens(maps: Maps, output: str) -> npt.NDArray[np.int64]:
    """The numbers of the tokens of a view that are made, int64 (K,), ascending."""
    made = ~maps.hidden
    if output == TOKEN_OUTPUTS[1]:
        made |= maps.hidden if maps.target is None else maps.target
    return np.flatnonzero(made)


class ViewTokens(NamedTuple):
    """The tokens of a view: their numbers, int64 (K,), and pixels, uint8 (K, tubelet, p, p, 3)."""

    numbers: npt.NDArray[np.int64]
    pixels: UInt8Array


class TokenRoom:
    """Where the tokens of a batch of `rows` rows are written, each of a shape (tubelet, p, p, 3).

    The memory is made when the first row says how many it has. A row with another number has memory of its own, and
    joining copies.
    """

    def __init__(self, rows: int, shape: tuple[int, ...]) -> None:
        self._rows, self._shape = rows, shape
        self._lock, self._whole = Lock(), np.empty((0, 0, *shape), np.uint8)

    def of(self, row: int, count: int) -> UInt8Array:
        """Memory for the tokens of a row, uint8 (count, tubelet, p, p, 3)."""
        with self._lock:
            if not len(self._whole):
                self._whole = empty((self._rows, count, *self._shape), np.uint8)
        if self._whole.shape[1] == count:
            own: UInt8Array = self._whole[row]
            return own
        return np.empty((count, *self._shape), np.uint8)

    def joined(self, tokens: Sequence[ViewTokens], output: str) -> TokenBatch:
        """The batch of the tokens of all rows; output: as in `list_chosen_tokens`."""
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
    """A batch of clips.

    video: uint8 (B, T, H, W, 3), RGB. mask: MaskBatch over the (T/pt, H/ph, W/pw) token grid in (t h w) order, or
    None where the loader was built without a mask. flow: Flow or None. pts_s: float64 (B, T), each frame's time in
    seconds from the start of its video. draws: in a host batch, those of the masks that a finish makes, one per clip;
    empty in the batches of a loader. planes: in a host batch of output="yuv", the pixels, of which a finish makes
    `video`; else None. tokens: with output="tokens" the pixels of the chosen tokens, and `video` is empty,
    (B, T, 0, 0, 3); else None. room: in a host batch that is not joined yet, where tokens are written. The rest is as
    in `Batch`.

    camera, others: of several components, the first, whose clips those above are, and the clips of the same samples and
    instants by the names of the others; see `cameras`.
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
        """The clips of each camera, by the name of its component, in the order that `component` names them. Each is a
        batch of its own with `video`, `mask`, `flow` and `pts_s`; empty where `component` names no several.
        """
        if not self.camera:
            return {}
        others = {name: replace(one, fields=self.fields) for name, one in self.others.items()}
        return {self.camera: replace(self, camera="", others={}), **others}

    def weighted(self, weight: Tensor) -> Self:
        """The batch with the targets of the masks of all cameras weighted by `weight`, float32 (B / views,)."""
        others = {name: one.weighted(weight) for name, one in self.others.items()}
        return replace(Batch.weighted(self, weight), others=others)

    def scene_cuts(self) -> int:
        """The number of scene cuts in its clips; 0 without flow."""
        return 0 if self.flow is None else int(self.flow.cuts.sum())

    def count_in(self, stats: Stats) -> None:
        """Adds its cuts, the cells of its flow, those with a vector, and their confidence."""
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
        """The clips as float (B, T, 3, H, W), scaled to [0, 1] and normalised by `mean` and `std` (ImageNet's)."""
        return normalised(self.video, mean, std, dtype or torch.float32)
