"""Scene cut detection: pairs of frames in which the later one shows no content of the earlier one, whatever the flow.

`codec` reads stored cuts from shards whose GOPs record where scenes start (shards/media/gop_notes.py,
`read_stored_cuts`). Otherwise two signs are combined. The earlier frame, warped along the flow, does not correlate with
the later one, so the change is not motion that the flow found; and their histograms differ, so it is not motion that
the flow missed. If both hold, blocks of the later frame are searched anywhere in the earlier one (`shared`): this finds
content that moves too fast for the flow, or background behind an object that enters. With codec flow, a cheaper sign
(`Codec.cuts`) avoids looking at the pixels of most pairs: at a cut, hardly any block has a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from maskstream.pipelines.capture import Captured, constants
from maskstream.pipelines.stream.tensors import torch
from maskstream.shards.arrays import Bools, Float32s, Int64s, UInt8s
from maskstream.shards.media.gop_notes import ANCHOR_STRIDE

from .base import compute_pixel_places

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 64
"""Approximate side in pixels of the thinned frames that are compared; each of their pixels is one of the frame's."""
LEAST_LIKE, LIKE_PER_DISTANCE, ENOUGH = 0.21, 1.6, 0.75
"""A cut requires a correlation below LEAST_LIKE plus LIKE_PER_DISTANCE times the histogram distance, and below ENOUGH,
which a flash exceeds.

Chosen on the sample videos at strides 1, 4 and 12, and on pairs of frames from different videos: motion missed by DIS
was observed at (0.58, 0.18) and (0.45, 0.14) of correlation and distance, cuts at (0.66, 0.45) and (0.34, 0.14).
"""
BINS = 8
BLOCKS, LEAST_BLOCK = 6, 5
"""Blocks per side of a frame of `correlate_pictures` (twice as many, overlapping by half, are searched), and the side
in its pixels below which a block is not informative.
"""
ALIKE, CONTRAST, MOST_SHARED = 0.9, 3.0, 0.06
"""A block is found if it correlates by more than ALIKE and a neighbouring block was found at the same displacement;
blocks with a standard deviation below CONTRAST levels are not searched. If a fraction above MOST_SHARED is found, there
is no cut.

Chosen on pairs of frames of the sample videos. Fractions found: 0.02 at the 90th and 0.05 at the 98th percentile for
different videos; at most 0.02 at their cuts; a median of 0.31 within a scene with histograms as different as at cuts.
"""


def scene_cuts(clips: Tensor, flow: Tensor) -> Tensor:
    """Detect whether a scene ends between the frames of each pair: bool (B, T-1).

    The same operations run on CUDA and, clip by clip, on a CPU.

    Args:
        clips: uint8 (B, T, H, W, 3), RGB.
        flow: float32 (B, T-1, h, w, 2), backward flow in pixels as in `Flow`.
    """
    if clips.device.type == "cpu" and len(clips) > 1:
        return torch.cat([scene_cuts(clip[None], own[None]) for clip, own in zip(clips, flow, strict=True)])
    found = _suspects(clips, flow)
    if len(pairs := found.nonzero()):
        small, (clip, pair) = pictures(clips), pairs.unbind(1)
        found[clip, pair] = shared(small[clip, pair], small[clip, pair + 1]) <= MOST_SHARED
    return found


def differ(clips: Tensor, flow: Tensor) -> Tensor:
    """Find the pairs in which both signs indicate a cut: bool (B, T-1)."""
    bound = LEAST_LIKE + LIKE_PER_DISTANCE * measure_histogram_distance(clips)
    return correlate_pictures(clips, flow) < bound.clamp(max=ENOUGH)


_suspects = Captured(differ)


def clip_cuts(pixels: UInt8s, vectors: Float32s) -> Bools:
    """Detect the cuts of one clip: bool (T-1,), from uint8 (T, H, W, 3) and float32 (T-1, h, w, 2)."""
    found: Bools = scene_cuts(torch.from_numpy(pixels)[None], torch.from_numpy(vectors)[None])[0].numpy()
    return found


def read_stored_cuts(frames: Int64s, starts: Mapping[int, bool]) -> Bools | None:
    """Return stored scene cuts between the frames `frames` (T,), bool (T-1,), from `DecodedClip.starts`.

    None if some are not stored or the frame numbers are not multiples of ANCHOR_STRIDE.
    """
    numbers = frames.tolist()
    if not starts or any(number % ANCHOR_STRIDE for number in numbers):
        return None
    found = np.zeros(len(numbers) - 1, dtype=np.bool_)
    for pair, (before, now) in enumerate(pairwise(numbers)):
        for number in range(before + ANCHOR_STRIDE, now + 1, ANCHOR_STRIDE):
            begins = starts.get(number)
            if begins is None:
                return None
            if begins:
                found[pair] = True
    return found


def shared(earlier: Tensor, later: Tensor) -> Tensor:
    """Return the fraction of blocks of `later` found anywhere in `earlier`, frames (N, 3, h, w): float32 (N,).

    It is 0 for frames that are too small.
    """
    count, _, height, width = later.shape
    side = min(height, width) // BLOCKS
    if side < LEAST_BLOCK:
        return later.new_zeros(count)
    step = side // 2
    rows, columns = (height - side) // step + 1, (width - side) // step + 1
    places, _ = _split_into_patches(earlier, side, 1)
    blocks, contrast = _split_into_patches(later, side, step)
    like, at = torch.bmm(places.transpose(1, 2), blocks).max(1)
    down = (at // (width - side + 1)).view(-1, rows, columns) - step * torch.arange(rows, device=at.device)[:, None]
    across = (at % (width - side + 1)).view(-1, rows, columns) - step * torch.arange(columns, device=at.device)
    looked_for = (contrast > CONTRAST).view(-1, rows, columns)
    good = (like > ALIKE).view(-1, rows, columns) & looked_for
    found = torch.zeros_like(good)
    for one, other in ((_ROWS, _NEXT_ROWS), (_COLUMNS, _NEXT_COLUMNS)):
        near = ((down[one] - down[other]).abs() <= 1) & ((across[one] - across[other]).abs() <= 1)
        both = good[one] & good[other] & near
        found[one] |= both
        found[other] |= both
    return found.flatten(1).sum(1) / looked_for.flatten(1).sum(1).clamp(min=BLOCKS)


_ROWS, _NEXT_ROWS = np.s_[:, :-1], np.s_[:, 1:]
_COLUMNS, _NEXT_COLUMNS = np.s_[:, :, :-1], np.s_[:, :, 1:]


def _split_into_patches(pictures: Tensor, side: int, step: int) -> tuple[Tensor, Tensor]:
    """Extract blocks of frames (N, 3, h, w), each colour centred and all divided by the norm: (N, 3 side side, L), and
    their standard deviations in levels, (N, L).
    """
    all_ = torch.unflatten(torch.nn.functional.unfold(pictures, side, stride=step), 1, (3, side * side))
    centred = (all_ - all_.mean(2, keepdim=True)).flatten(1, 2)
    norm = centred.norm(dim=1, keepdim=True)
    return centred / norm.clamp(min=1e-6), norm[:, 0] / centred.shape[1] ** 0.5


def pictures(clips: Tensor) -> Tensor:
    """Downsample clips (B, T, H, W, 3) for comparison: float32 (B, T, 3, h, w)."""
    return torch.unflatten(
        torch.nn.functional.avg_pool2d(thinned(clips).flatten(0, 1).movedim(3, 1), 2), 0, clips.shape[:2]
    )


def correlate_pictures(clips: Tensor, flow: Tensor) -> Tensor:
    """Correlate each frame, from -1 to 1, with the previous one warped along the flow: float32 (B, T-1).

    It decreases if little of the previous frame is inside after warping, and is 0 if nothing is.
    """
    batch, frames, height, width, _ = clips.shape
    pairs = pictures(clips)
    rows, columns = pairs.shape[-2:]
    scale = constants(flow.device, columns / width, rows / height)
    step = torch.nn.functional.interpolate((flow * scale).flatten(0, 1).movedim(3, 1), (rows, columns), mode="bilinear")
    place, sides = (
        compute_pixel_places(rows, columns, flow.device) + step,
        constants(flow.device, columns, rows)[:, None, None],
    )
    within = (place > -1) & (place < sides)
    inside = (within[:, :1] & within[:, 1:]).float()
    there = ((2 * place + 1) / sides - 1).movedim(1, -1)
    before = torch.nn.functional.grid_sample(
        pairs[:, :-1].flatten(0, 1), there, padding_mode="border", align_corners=False
    )
    now, weight = pairs[:, 1:].flatten(0, 1), inside / inside.mean((2, 3), keepdim=True).clamp(min=1e-6)
    before = before - (before * weight).mean((2, 3), keepdim=True)
    now = now - (now * weight).mean((2, 3), keepdim=True)
    product, one, other = ((a * b * weight).mean((1, 2, 3)) for a, b in ((before, now), (before, before), (now, now)))
    share = (inside.mean((1, 2, 3)) * 4).clamp(max=1)
    return torch.unflatten(share * (product + 1) / ((one + 1) * (other + 1)).sqrt(), 0, (batch, frames - 1))


def measure_histogram_distance(clips: Tensor) -> Tensor:
    """Return the fraction of pixels that change their bin between frames, averaged over colours: float32 (B, T-1)."""
    seen = thinned(clips).flatten(2, 3)
    bounds = constants(clips.device, *(256 * n / BINS for n in range(1, BINS)))
    counts = torch.nn.functional.pad(
        torch.nn.functional.pad((seen[..., None] >= bounds).float().mean(2), (1, 0), value=1.0), (0, 1)
    )
    shares = counts[..., :-1] - counts[..., 1:]
    return (shares[:, 1:] - shares[:, :-1]).abs().sum(-1).mean(-1) / 2


def thinned(clips: Tensor) -> Tensor:
    """Take every n-th pixel of clips (B, T, H, W, 3), leaving about SIDE per side: float32 (B, T, h, w, 3)."""
    down, across = (max(side // SIDE, 1) for side in clips.shape[2:4])
    return clips[:, :, down // 2 :: down, across // 2 :: across].float()
