"""What a backend of motion-guided masks computes (numba for single clips on a CPU: maps.py), and that for any device:
torch, a batch at once.

Every operation is one elementwise kernel or an index, and sums are added term by term in a fixed order: so the bits are
those of numba's loops, on a CPU and on CUDA. Nothing waits for the device. About 40 operations a frame, whatever the
number of clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float32]
Numbers = TypeVar("Numbers")
"""Floats of B clips: a list of arrays, or one tensor."""
Hidden = TypeVar("Hidden", covariant=True)
"""The same for bools."""


@dataclass(frozen=True, slots=True)
class MotionDraws:
    """All random numbers of the mask of one view, which are drawn before its flow is known.

    start: float32 (H, W), the map of frame `base`. noise: the time step whose scores get it, and float64 (h * w,); None
    without exposure. visible: how many tokens stay visible in each row of scores. order: int64 (N,), a permutation of
    the tokens of a row, which decides between equal scores. ratio: the share of hidden tokens.
    """

    start: Floats
    base: int
    noise: tuple[int, npt.NDArray[np.float64]] | None
    visible: int
    order: npt.NDArray[np.int64]
    ratio: float


class MapBackend(Protocol[Numbers, Hidden]):
    """The steps of the rule for B clips. Backends agree in every bit, so nothing depends on which one computed a mask.

    All arithmetic is in float32, operation by operation, in the order that the kernels of maps.py have.
    """

    def carry(
        self,
        draws: Sequence[MotionDraws],
        flow: Numbers,
        *,
        cell: tuple[float, float],
        fill: bool,
        compat: bool,
    ) -> Numbers:
        """The start maps carried along the flow, (T-1, h, w, 2) of each clip, to (T, H, W); see `warp.carry`."""

    def token_sums(self, maps: Numbers, tubelet: int, cells: int) -> Numbers:
        """The sums over tokens, (t, h * w) of each clip; see `maps.token_sums`."""

    def disturbed(self, scores: Numbers, draws: Sequence[MotionDraws], scale: float) -> Numbers:
        """The scores times `scale`, plus the noise of each draw."""

    def all_but_highest(self, scores: Numbers, draws: Sequence[MotionDraws], *, whole: bool) -> Hidden:
        """The map that hides all but the highest tokens of each row, or of the `whole` clip: bool (t * h * w,)."""


_INVERSION_STEPS = 3
_PARTS = 32
"""As in maps.py: places are rounded to 1/32 of a cell."""


class TorchMaps:
    """`MapBackend` for tensors, which stay on the flow's device."""

    def carry(
        self, draws: Sequence[MotionDraws], flow: Tensor, *, cell: tuple[float, float], fill: bool, compat: bool
    ) -> Tensor:
        """The start maps carried along the flow: float32 (B, T, H, W)."""
        start = sent([own.start for own in draws], flow.device)
        bases = [own.base for own in draws]
        base = sent([np.array(bases)], flow.device)[0].view(-1, 1)
        height, width = start.shape[1:]
        first = start.flatten(1)
        steps = cell_steps(flow, base, max(bases), (height, width), cell, compat=compat)
        maps = [first] * (flow.shape[1] + 1)

        def warped(neighbour: int, pair: int, frame: int, reached: Tensor) -> Tensor:
            moved = moved_map(maps[neighbour], steps[:, pair], (height, width))
            moved = torch.where(moved != 0.0, moved, first) if fill else moved
            return torch.where(reached, moved, maps[frame])

        for frame in range(min(bases) + 1, len(maps)):
            maps[frame] = warped(frame - 1, frame - 1, frame, base < frame)
        for frame in range(max(bases) - 1, -1, -1):
            maps[frame] = warped(frame + 1, frame, frame, base > frame)
        return torch.stack(maps, dim=1).view(len(draws), -1, height, width)

    def token_sums(self, maps: Tensor, tubelet: int, cells: int) -> Tensor:
        """The sums over tokens: float32 (B, t, h * w)."""
        clips, frames, height, width = maps.shape
        parts = maps.view(clips, frames // tubelet, tubelet, height // cells, cells, width)
        lines = torch.zeros_like(parts[:, :, 0, :, 0])
        for frame in range(tubelet):
            for row in range(cells):
                lines = lines + parts[:, :, frame, :, row]
        columns = lines.view(*lines.shape[:3], width // cells, cells)
        sums = torch.zeros_like(columns[..., 0])
        for column in range(cells):
            sums = sums + columns[..., column]
        return sums.flatten(2)

    def disturbed(self, scores: Tensor, draws: Sequence[MotionDraws], scale: float) -> Tensor:
        """The scores times `scale`, plus the noise."""
        noise = np.zeros(scores.shape)
        for own, drawn in zip(noise, draws, strict=True):
            if drawn.noise is not None:
                own[drawn.noise[0]] = drawn.noise[1]
        scaled = scores * float(np.float32(scale))
        return (scaled.double() + sent([*noise], scores.device)).float()

    def all_but_highest(self, scores: Tensor, draws: Sequence[MotionDraws], *, whole: bool) -> Tensor:
        """The maps of hidden tokens: bool (B, t * h * w)."""
        rows = scores.flatten(1)[:, None] if whole else scores
        order = sent([own.order for own in draws], scores.device)[:, None].expand(rows.shape)
        visible = sent([np.array([own.visible for own in draws])], scores.device)[0].view(-1, 1, 1)
        ordered = rows.gather(2, order) + 0.0  # -0 and 0 are equal, in a radix sort too
        best = torch.sort(ordered, dim=2, descending=True, stable=True).indices
        behind = torch.arange(rows.shape[2], device=scores.device) >= visible
        hidden = torch.empty(rows.shape, dtype=torch.bool, device=scores.device)
        return hidden.scatter_(2, order.gather(2, best), behind.expand(rows.shape)).flatten(1)


def sent(arrays: Sequence[npt.NDArray[np.generic]], device: torch.device) -> Tensor:
    """Arrays of one shape, stacked, on a device; on CUDA the copy does not wait."""
    stacked = torch.from_numpy(np.stack(arrays))
    return stacked.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else stacked.to(device)


def cell_steps(
    flow: Tensor, base: Tensor, latest: int, size: tuple[int, int], cell: tuple[float, float], *, compat: bool
) -> Tensor:
    """How far each pair of frames moves, in map cells: (B, T-1, 2, h, w), before `base` (B, 1) by the inverse flow.

    latest: the greatest of `base`. size: height and width of the maps.
    """
    rows, columns = flow.shape[2:4]
    height, width = size
    x, y = 1 / cell[0], 1 / cell[1]
    planes = flow.float().movedim(-1, 2)
    steps = planes * scales(x, y, flow.device)
    if compat or latest == 0:
        return steps
    fields = planes[:, :latest] * scales(x * columns / width, y * rows / height, flow.device)
    back = inverted(fields.flatten(0, 1)).view(fields.shape) * scales(width / columns, height / rows, flow.device)
    before = torch.arange(latest, device=flow.device) < base
    return torch.cat([torch.where(before[..., None, None, None], back, steps[:, :latest]), steps[:, latest:]], dim=1)


def scales(x: float, y: float, device: torch.device) -> Tensor:
    """Factors of planes (..., 2, h, w), rounded to float32."""
    return torch.stack([torch.full((1, 1), each, dtype=torch.float32, device=device) for each in (x, y)])


def inverted(fields: Tensor) -> Tensor:
    """The inverse of fields (K, 2, h, w), in their own cells; see `warp.inverse`."""
    rows, columns = fields.shape[2:]
    flat = fields.flatten(2)
    to = -flat
    for _ in range(_INVERSION_STEPS - 1):
        sides = between(to, (rows, columns), border=0)
        to = -torch.stack([sampled(flat[:, axis], columns, sides, (rows, columns)) for axis in range(2)], dim=1)
    return to.view(fields.shape)


def moved_map(plane: Tensor, steps: Tensor, size: tuple[int, int]) -> Tensor:
    """`plane` (B, H * W), of frames of `size` = (H, W), sampled where `steps` (B, 2, h, w) lead; 0 outside."""
    height, width = size
    framed = torch.nn.functional.pad(plane.view(-1, height, width), (1, 1, 1, 1))
    sides = between(enlarged(steps, size).flatten(2), size, border=1)
    return sampled(framed.flatten(1), width + 2, sides, (height + 2, width + 2))


Sides = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of each place: the column and row of the cell before it, int64, and how far behind them it lies, in [0, 1]."""


def between(steps: Tensor, size: tuple[int, int], border: int) -> Sides:
    """The cells around places + `steps` (B, 2, H * W), in a plane of `size` with a border; see `cells_and_shares`."""
    height, width = size
    columns, rows = cell_places(height, width, border, steps.device)
    found: list[Tensor] = []
    shares: list[Tensor] = []
    for axis, (place, cells) in enumerate(((columns, width), (rows, height))):
        last = cells - 1 + 2 * border
        part = (place + steps[:, axis]) * float(_PARTS)
        part = part + 0.5
        part = torch.where(part > 0.0, part, 0.0)
        part = torch.where(part < float(last * _PARTS), part, float(last * _PARTS))
        parts = part.to(torch.int32)
        cell = (parts // _PARTS).clamp(max=max(last - 1, 0))
        shares.append((parts - cell * _PARTS).float() * (1.0 / _PARTS))
        found.append(cell.long())
    return found[0], found[1], shares[0], shares[1]


def sampled(image: Tensor, stride: int, sides: Sides, size: tuple[int, int]) -> Tensor:
    """`image` (B, cells) of a plane of `size`, whose rows are `stride` long, bilinearly at `sides`: (B, places)."""
    columns, rows, along, across = sides
    right, down = min(size[1] - 1, 1), min(size[0] - 1, 1) * stride
    at = rows * stride + columns
    above, below = (image.gather(1, at + more) for more in (0, down))
    above = above + (image.gather(1, at + right) - above) * along
    below = below + (image.gather(1, at + down + right) - below) * along
    return above + (below - above) * across


def enlarged(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes (..., h, w), bilinearly on H x W places: (..., H, W)."""
    left, right, along = axis_sides(planes.shape[-1], size[1], planes.device)
    top, bottom, down = axis_sides(planes.shape[-2], size[0], planes.device)
    a = planes[..., left]
    wide = a + (planes[..., right] - a) * along
    high = wide[..., top, :]
    return high + (wide[..., bottom, :] - high) * down[:, None]


@lru_cache(maxsize=64)
def axis_sides(cells: int, pixels: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `pixels` along an axis of `cells`: the cells before and behind it, and its place between them."""
    place = ((np.arange(pixels) + 0.5) * cells / pixels - 0.5).clip(0.0, cells - 1.0)
    before = place.astype(np.int64)
    behind, share = np.minimum(before + 1, cells - 1), (place - before).astype(np.float32)
    return torch.from_numpy(before).to(device), torch.from_numpy(behind).to(device), torch.from_numpy(share).to(device)


@lru_cache(maxsize=64)
def cell_places(height: int, width: int, offset: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Each cell's column and row plus `offset`: float32 (H * W,) each."""
    rows, columns = np.mgrid[offset : height + offset, offset : width + offset].astype(np.float32)
    return torch.from_numpy(columns.reshape(-1)).to(device), torch.from_numpy(rows.reshape(-1)).to(device)
