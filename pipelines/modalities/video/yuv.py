"""Convert crops of YUV planes to RGB on a device: resize, flip and colour conversion of a whole batch.

Crops differ in size, so planes are padded to the largest, and inputs of each output pixel are gathered by index. The
integer arithmetic of `decode/pixels.py` is reproduced exactly, so pixels equal the results of `decode.cpu.to_rgb`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .batch import PlaneBatch, VideoBatch

if TYPE_CHECKING:
    from maskstream.pipelines.decode.pixels import Taps


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanesFinish:
    """Converts the planes of a host batch to RGB clips of `size` pixels on its device."""

    size: int

    @torch.no_grad()
    def __call__(self, batch: VideoBatch, device: torch.device) -> VideoBatch:
        """Replace planes by pixels."""
        if batch.planes is None:
            raise ValueError("the host batch has no planes; its sampler creates them with output='yuv'")
        return replace(batch, video=convert_planes(batch.planes, self.size), planes=None)


def convert_planes(planes: PlaneBatch, size: int) -> Tensor:
    """Convert planes to clips uint8 (B, T, size, size, 3) on their device."""
    device = planes.luma.device
    halves = [clip.half and size % 2 == 0 for clip in planes.clips]
    flips = torch.tensor([clip.flip for clip in planes.clips], device=device).view(-1, 1, 1, 1)
    is_half = torch.tensor(halves, device=device).view(-1, 1, 1, 1)
    shapes = [clip.chroma for clip in planes.clips]

    def chroma(plane: Tensor) -> Tensor:
        if not any(halves):
            return resized(plane, shapes, size)
        half = resized(plane, shapes, size // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return half if all(halves) else torch.where(is_half, half, resized(plane, shapes, size))

    black, *shares = (number.view(-1, 1, 1, 1) for number in planes.colours.unbind(1))
    luma = (resized(planes.luma, [clip.luma for clip in planes.clips], size) - black).clamp_min_(0) << 7
    u, v = ((chroma(planes.chroma[:, :, n]) - 128) << 8 for n in (0, 1))
    y, red_v, green_u, green_v, blue_u = (
        (of * share) >> 16 for of, share in zip((luma, v, u, v, u), shares, strict=True)
    )
    channels = [(y + one + 17) >> 5 for one in (red_v, green_u + green_v, blue_u)]
    rgb = torch.stack(channels, dim=-1).clamp_(0, 255).to(torch.uint8)
    return torch.where(flips[..., None], rgb.flip(3), rgb)


def resized(plane: Tensor, shapes: Sequence[tuple[int, int]], size: int) -> Tensor:
    """Resize planes uint8 (B, T, H, W), with a separate (height, width) per clip, to int32 (B, T, size, size)."""
    from maskstream.pipelines.decode.pixels import compute_plane_taps

    down, across = zip(*(compute_plane_taps(*shape, size, size, False)[:2] for shape in shapes), strict=True)
    rows = (_mix_along_axis(plane, 2, down) + 32) >> 6
    return (_mix_along_axis(rows, 3, across) + (1 << 21)) >> 22


def _mix_along_axis(values: Tensor, axis: int, taps: Sequence[Taps]) -> Tensor:
    """Compute weighted sums along an axis of (B, T, H, W), with separate filter taps per clip; int32."""
    of = (len(taps), 1, -1, 1) if axis == 2 else (len(taps), 1, 1, -1)
    weights = np.zeros((*np.shape([first for first, _ in taps]), max(own.shape[1] for _, own in taps)), np.int32)
    for to, (_, own) in zip(weights, taps, strict=True):
        to[:, : own.shape[1]] = own
    firsts = torch.from_numpy(np.stack([first for first, _ in taps])).to(values.device).view(of)
    shape = list(values.shape)
    shape[axis] = weights.shape[1]
    total = torch.zeros(shape, dtype=torch.int32, device=values.device)
    for n, share in enumerate(torch.from_numpy(weights).to(values.device).unbind(2)):
        at = (firsts + n).clamp_max_(values.shape[axis] - 1)  # positions past the end have weight 0
        total += values.gather(axis, at.expand(shape)).int() * share.view(of)
    return total
