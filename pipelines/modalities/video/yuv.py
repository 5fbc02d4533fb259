"""Crops of YUV planes to RGB on a device: resize, flip and colours of a whole batch.

Clips have crops of their own sizes, so planes are padded to the largest and each output takes its inputs by number. The
arithmetic of resizing is OpenCV's, in integers, since a level of chroma is two of blue: so the result equals
`decode.cpu.to_rgb` within 2 levels, but where areas are averaged, whose ties the
two round apart: 3 or 4 in fewer than one of 1,000 values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .batch import PlaneBatch, VideoBatch

Output = Literal["rgb", "yuv"]
"""What a sampler makes: RGB clips, or the planes of which a finish makes them."""
OutputChoice = Literal["auto", "rgb", "yuv"]
"""The same, or what suits the device."""
_BLACK = 16
"""The level of black in limited range; what is below is black for OpenCV."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanesFinish:
    """Makes RGB clips of `size` pixels of the planes of a host batch, on its device."""

    size: int

    @torch.no_grad()
    def __call__(self, batch: VideoBatch, device: torch.device) -> VideoBatch:
        """The batch with pixels instead of planes."""
        if batch.planes is None:
            raise ValueError("the host batch has no planes; its sampler makes them with output='yuv'")
        return replace(batch, video=planes_to_rgb(batch.planes, self.size), planes=None)


def planes_to_rgb(planes: PlaneBatch, size: int) -> Tensor:
    """The clips as uint8 (B, T, size, size, 3), on the device of the planes."""
    device = planes.luma.device
    halves = [clip.half and size % 2 == 0 for clip in planes.clips]
    flips = torch.tensor([clip.flip for clip in planes.clips], device=device).view(-1, 1, 1, 1)
    is_half = torch.tensor(halves, device=device).view(-1, 1, 1, 1)
    luma = resized(planes.luma, [clip.luma for clip in planes.clips], size)
    luma = torch.where(is_half, luma.clamp_min(_BLACK), luma)
    shapes = [clip.chroma for clip in planes.clips]

    def chroma(plane: Tensor) -> Tensor:
        if not any(halves):
            return resized(plane, shapes, size)
        half = resized(plane, shapes, size // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return half if all(halves) else torch.where(is_half, half, resized(plane, shapes, size))

    u, v = (chroma(planes.chroma[:, :, n]) for n in (0, 1))
    matrix = planes.colours[:, :, :, None, None, None]
    channels = [matrix[:, c, 0] * luma + matrix[:, c, 1] * u + matrix[:, c, 2] * v + matrix[:, c, 3] for c in range(3)]
    rgb = torch.stack(channels, dim=-1).round_().clamp_(0, 255).to(torch.uint8)
    return torch.where(flips[..., None], rgb.flip(3), rgb)


def resized(plane: Tensor, shapes: Sequence[tuple[int, int]], size: int) -> Tensor:
    """The planes uint8 (B, T, H, W), of which each clip has its (height, width), as float32 (B, T, size, size).

    The values are OpenCV's: linear with pixel centres at half, in its fixed point; where a side is at least twice
    `size`, averages of areas, or if the other is shorter than `size`, its linear approximation of them.
    """
    sides = torch.tensor(shapes, dtype=torch.float32, device=plane.device)
    shrinks = [max(shape) >= 2 * size for shape in shapes]
    areas = [shrinks_much and min(shape) >= size for shrinks_much, shape in zip(shrinks, shapes, strict=True)]
    between = torch.tensor(shrinks, device=plane.device)
    if all(areas):
        return _area(plane, sides, size)
    linear = _linear(plane, sides, size, between)
    if not any(areas):
        return linear
    return torch.where(torch.tensor(areas, device=plane.device).view(-1, 1, 1, 1), _area(plane, sides, size), linear)


def _linear(plane: Tensor, sides: Tensor, size: int, of_areas: Tensor) -> Tensor:
    """Weights have 11 bits; four bits of a row's sums, and what is below a quarter of a level, are cut off."""
    top, bottom, *down = _taps(sides[:, 0], size, of_areas)
    left, right, *across = _taps(sides[:, 1], size, of_areas)
    b, t, height, _ = plane.shape
    a0, a1 = (weight.view(b, 1, 1, size) for weight in across)
    b0, b1 = (weight.view(b, 1, size, 1) for weight in down)

    def columns(at: Tensor) -> Tensor:
        return plane.gather(3, at.view(b, 1, 1, size).expand(b, t, height, size)).int()

    rows = (columns(left) * a0 + columns(right) * a1) >> 4

    def lines(at: Tensor) -> Tensor:
        return rows.gather(2, at.view(b, 1, size, 1).expand(b, t, size, size))

    return ((((lines(top) * b0) >> 16) + ((lines(bottom) * b1) >> 16) + 2) >> 2).float()


def _taps(sides: Tensor, size: int, of_areas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two inputs of each output, int64 (B, size), and their weights, int32 of 2048; of areas where it is true."""
    last, scale = (sides - 1).view(-1, 1), (sides / size).view(-1, 1)
    target, is_area = torch.arange(size, device=sides.device), of_areas.view(-1, 1)
    centre = (target + 0.5) * scale - 0.5
    first = torch.where(is_area, target * scale, centre).floor()
    past = (target + 1) - (first + 1) / scale
    share = torch.where(is_area, torch.where(past > 0, past - past.floor(), 0), centre - first)
    before, after = (torch.minimum(at.clamp_min(0), last).long() for at in (first, first + 1))
    return before, after, (2048 * (1 - share)).round().int(), (2048 * share).round().int()


def _area(plane: Tensor, sides: Tensor, size: int) -> Tensor:
    """Rows times plane times columns, where a weight is the share of an output that an input covers."""
    rows, columns = (_covers(sides[:, axis], size, plane.shape[2 + axis]) for axis in (0, 1))
    means = rows[:, None] @ plane.float() @ columns[:, None].transpose(-1, -2)
    is_pair = (sides == 2 * size).all(dim=1).view(-1, 1, 1, 1)  # OpenCV averages 2 x 2 in integers
    return torch.where(is_pair, (means + 0.5).floor(), means.round())


def _covers(sides: Tensor, size: int, longest: int) -> Tensor:
    """The shares of the first `sides` (B,) of `longest` inputs in `size` outputs: float32 (B, size, longest)."""
    source = torch.arange(longest, device=sides.device, dtype=torch.float32)
    scale = (sides / size).view(-1, 1, 1)
    begin = torch.arange(size, device=sides.device, dtype=torch.float32).view(1, -1, 1) * scale
    shares = (torch.minimum(begin + scale, source + 1) - torch.maximum(begin, source)).clamp_min(0) / scale
    return shares * (source < sides.view(-1, 1, 1))
