"""Interface of the backends of motion-guided masks, and the torch backend for whole batches on any device.

(The numba backend for single clips on a CPU is in maps.py.) Every operation is one elementwise kernel or an index, and
sums are added term by term in a fixed order, so results are bit-identical to numba's loops on CPU and CUDA. Nothing
synchronises with the device. Everything that does not depend on the previous frame's map is computed for all frames at
once (on a CPU, for as many as fit in cache). That leaves about 10 operations per frame, whatever the number of clips;
on CUDA they form one graph (pipelines/capture.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.capture import constants
from maskstream.pipelines.stream.tensors import torch
from maskstream.shards.arrays import Float32s, Float64s, Int64s

if TYPE_CHECKING:
    from torch import Tensor

Draws = TypeVar("Draws", contravariant=True)
"""Draws of B clips: a list of `MotionDraws`, or one `DrawTensors`."""
Numbers = TypeVar("Numbers")
"""Floats of B clips: a list of arrays, or one tensor."""
Hidden = TypeVar("Hidden", covariant=True)
"""Bools of B clips: a list of arrays, or one tensor."""


@dataclass(frozen=True, slots=True)
class MotionDraws:
    """All random numbers of one view's mask, drawn before its flow is known."""

    start: Float32s
    """float32 (H, W): map of frame `base`."""
    base: int
    """Base frame."""
    noise: tuple[int, Float64s] | None
    """Time step whose scores are perturbed, and the noise, float64 (h * w,); None without exposure."""
    visible: int
    """Number of visible tokens per row of scores."""
    order: Int64s
    """int64 (N,): permutation of a row's tokens that breaks ties."""
    ratio: float
    """Fraction of hidden tokens."""


@dataclass(frozen=True, slots=True)
class DrawTensors:
    """`MotionDraws` of B clips on a device: start (B, H, W), base (B,), visible (B,), order (B, N).

    `noise` is float64 (B, t, h * w), zero except at the perturbed time step, or None.
    """

    start: Tensor
    base: Tensor
    visible: Tensor
    order: Tensor
    noise: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Fields in order, without `noise` if it is None."""
        own = (self.start, self.base, self.visible, self.order)
        return own if self.noise is None else (*own, self.noise)


class MapBackend(Protocol[Draws, Numbers, Hidden]):
    """Steps of the mask for B clips. All backends agree bit by bit, so a mask does not depend on the backend.

    All arithmetic is float32, operation by operation, in the order of the kernels in maps.py.
    """

    def carry(
        self,
        draws: Draws,
        flow: Numbers,
        *,
        cell: tuple[float, float],
        fill: bool,
        compat: bool,
    ) -> Numbers:
        """Warp the start maps along each clip's flow, (T-1, h, w, 2), to maps (T, H, W); see `maps.carry`."""

    def sum_tokens(self, maps: Numbers, tubelet: int, cells: int) -> Numbers:
        """Sum over tokens, (t, h * w) per clip; see `maps.sum_tokens`."""

    def disturbed(self, scores: Numbers, draws: Draws, scale: float) -> Numbers:
        """Scale the scores and add the noise of each draw."""

    def hide_all_but_highest(self, scores: Numbers, draws: Draws, *, whole: bool) -> Hidden:
        """Hide all but the highest tokens of each row, or of the `whole` clip: bool (t * h * w,)."""


_INVERSION_STEPS = 3
_BITS = 5
_PARTS = 1 << _BITS
"""As in maps.py: positions are rounded to 1/32 of a cell."""
IN_CACHE = 16
"""Frames computed at once on a CPU, over all clips; more would not fit in its caches."""


class TorchMaps:
    """`MapBackend` for tensors on the flow's device."""

    def carry(self, draws: DrawTensors, flow: Tensor, *, cell: tuple[float, float], fill: bool, compat: bool) -> Tensor:
        """Warp the start maps along the flow: float32 (B, T, H, W).

        Each clip takes T - 1 steps: from its base back to the first frame, then from its base forward to the last one.
        """
        base, (clips, pairs) = draws.base[:, None], flow.shape[:2]
        (height, width), row = draws.start.shape[1:], counted(clips, flow.device)[:, None]
        # one extra cell of value 0 represents the outside
        first = seen = torch.nn.functional.pad(draws.start.flatten(1), (0, 1))
        maps = [first]
        at_once = pairs if flow.is_cuda else max(IN_CACHE // clips, 1)
        # Clips have different bases, but each needs T - 1 steps: those back first, then those forward. Displacements do
        # not depend on the maps, so they are computed for many steps at once; only sampling is done step by step.
        for step in torch.split(counted(pairs, flow.device), at_once):
            back, again = step < base, step + 1 == base
            pair = torch.where(back, base - 1 - step, step)
            moves = measure_cell_steps(
                flow.float()[row, pair].movedim(-1, 2), back, (height, width), cell, compat=compat
            )
            corners, along, across = map_sides(moves, (height, width))
            for n in range(len(step)):
                moved = interpolate_corners(
                    seen.gather(1, corners[:, n].flatten(1)).view(clips, 4, -1), along[:, n], across[:, n]
                )
                maps.append(torch.where(moved != 0.0, moved, first) if fill else moved)
                seen = torch.where(again[:, n, None], first, maps[-1])
        frame = counted(pairs + 1, flow.device)
        ordered = torch.stack(maps, dim=1)[row, torch.where(frame <= base, base - frame, frame)]
        return torch.unflatten(ordered[..., :-1], 2, (height, width))

    def sum_tokens(self, maps: Tensor, tubelet: int, cells: int) -> Tensor:
        """Sum over tokens: float32 (B, t, h * w)."""
        clips, frames, height, width = maps.shape
        parts = maps.reshape(clips, frames // tubelet, tubelet, height // cells, cells, width)
        lines = torch.zeros_like(parts[:, :, 0, :, 0])
        for frame in range(tubelet):
            for row in range(cells):
                lines = lines + parts[:, :, frame, :, row]
        columns = lines.view(*lines.shape[:3], width // cells, cells)
        sums = torch.zeros_like(columns[..., 0])
        for column in range(cells):
            sums = sums + columns[..., column]
        return sums.flatten(2)

    def disturbed(self, scores: Tensor, draws: DrawTensors, scale: float) -> Tensor:
        """Scale the scores and add the noise."""
        scaled = scores * float(np.float32(scale))
        return scaled if draws.noise is None else (scaled.double() + draws.noise).float()

    def hide_all_but_highest(self, scores: Tensor, draws: DrawTensors, *, whole: bool) -> Tensor:
        """Return the maps of hidden tokens: bool (B, t * h * w)."""
        rows = scores.flatten(1)[:, None] if whole else scores
        order = draws.order[:, None].expand(rows.shape)
        ordered = rows.gather(2, order) + 0.0  # makes -0 equal to 0, also for a radix sort
        best = torch.sort(ordered, dim=2, descending=True, stable=True).indices
        behind = counted(rows.shape[2], scores.device) >= draws.visible.view(-1, 1, 1)
        hidden = torch.empty(rows.shape, dtype=torch.bool, device=scores.device)
        return hidden.scatter_(2, order.gather(2, best), behind.expand(rows.shape)).flatten(1)


def send_draws(draws: Sequence[MotionDraws], steps: int, device: torch.device) -> DrawTensors:
    """Copy the draws of clips with `steps` time steps to a device."""
    noise = None
    if any(own.noise is not None for own in draws):
        noise = np.zeros((len(draws), steps, len(draws[0].noise[1]) if draws[0].noise else 0))
        for row, drawn in zip(noise, draws, strict=True):
            if drawn.noise is not None:
                row[drawn.noise[0]] = drawn.noise[1]
    return DrawTensors(
        start=sent(np.stack([own.start for own in draws]), device),
        base=sent(np.array([own.base for own in draws]), device),
        visible=sent(np.array([own.visible for own in draws]), device),
        order=sent(np.stack([own.order for own in draws]), device),
        noise=None if noise is None else sent(noise, device),
    )


def sent(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy an array to a device; asynchronous on CUDA."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def measure_cell_steps(
    planes: Tensor, back: Tensor, size: tuple[int, int], cell: tuple[float, float], *, compat: bool
) -> Tensor:
    """Convert the flow `planes` (B, N, 2, h, w) to displacements in map cells; inverted where `back` (B, N) is True.

    `size` is the height and width of the maps.
    """
    (rows, columns), (height, width), device = planes.shape[3:], size, planes.device
    x, y = 1 / cell[0], 1 / cell[1]
    steps = planes * scales(x, y, device)
    if compat:
        return steps
    fields = planes * scales(x * columns / width, y * rows / height, device)
    inverse = inverted(fields.flatten(0, 1)).view(fields.shape) * scales(width / columns, height / rows, device)
    return torch.where(back[..., None, None, None], inverse, steps)


def scales(x: float, y: float, device: torch.device) -> Tensor:
    """Return factors for planes (..., 2, h, w), rounded to float32."""
    return constants(device, x, y)[:, None, None]


def inverted(fields: Tensor) -> Tensor:
    """Invert fields (K, 2, h, w) in units of their cells; see `maps.inverse`."""
    rows, columns = fields.shape[2:]
    flat = fields.flatten(2)
    corners = compute_corner_offsets(min(columns - 1, 1), min(rows - 1, 1) * columns, fields.device)
    to = -flat
    for _ in range(_INVERSION_STEPS - 1):
        cells, shares = between(to, (rows, columns), border=0)
        at = (cells[:, 1] * columns + cells[:, 0])[:, None] + corners
        found = torch.unflatten(flat.gather(2, at.flatten(1)[:, None].expand(-1, 2, -1)), 2, (4, -1))
        to = -interpolate_corners(found, shares[:, :1], shares[:, 1:])
    return to.view(fields.shape)


def map_sides(moves: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Find the four cells around each displaced position of maps of `size`.

    Args:
        moves: (B, N, 2, h, w), displacements in map cells.
        size: Height and width of the maps.

    Returns:
        Cell numbers, int64 (B, N, 4, H * W + 1), where H * W means outside, and the fractions towards the right and
            lower cells, (B, N, H * W + 1) each. The extra last position represents the outside.
    """
    height, width = size
    cells, shares = between(enlarged(moves, size).flatten(3).flatten(0, 1), size, border=1)
    at = (cells[:, 1] * (width + 2) + cells[:, 0])[:, None] + compute_corner_offsets(1, width + 2, moves.device)
    corners = torch.nn.functional.pad(
        number_framed_cells(height, width, moves.device)[at], (0, 1), value=height * width
    )
    shares = torch.unflatten(torch.nn.functional.pad(shares, (0, 1)), 0, moves.shape[:2])
    return torch.unflatten(corners, 0, moves.shape[:2]), shares[:, :, 0], shares[:, :, 1]


def between(steps: Tensor, size: tuple[int, int], border: int) -> tuple[Tensor, Tensor]:
    """Split positions plus `steps` (K, 2, H * W), x then y, into preceding cells (int32) and fractions in [0, 1].

    The plane has this `size` and a `border` on each side; see `maps.locate_cell`.
    """
    height, width = size
    last = tuple(cells - 1 + 2 * border for cells in (width, height))
    end = constants(steps.device, *(float(one * _PARTS) for one in last))[:, None]
    part = (compute_cell_places(height, width, border, steps.device) + steps) * float(_PARTS) + 0.5
    part = torch.where(part > 0.0, part, 0.0)
    parts = torch.where(part < end, part, end).int()
    most = integers(steps.device, *(max(one - 1, 0) for one in last))[:, None]
    cell = torch.minimum(parts >> _BITS, most)
    return cell, (parts - (cell << _BITS)).float() * (1.0 / _PARTS)


def interpolate_corners(corners: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """Interpolate bilinearly between corners (..., 4, positions), upper ones first: (..., positions)."""
    left, right = corners[..., ::2, :], corners[..., 1::2, :]
    above, below = (left + (right - left) * along[..., None, :]).unbind(-2)
    return above + (below - above) * across


def enlarged(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize planes (..., h, w) bilinearly to (..., H, W)."""
    left, right, along = compute_axis_sides(planes.shape[-1], size[1], planes.device)
    top, bottom, down = compute_axis_sides(planes.shape[-2], size[0], planes.device)
    a = planes[..., left]
    wide = a + (planes[..., right] - a) * along
    high = wide[..., top, :]
    return high + (wide[..., bottom, :] - high) * down[:, None]


@cache
def compute_axis_sides(cells: int, pixels: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `pixels` along an axis of `cells`, return the preceding and following cells and the fraction between
    them.
    """
    place = ((np.arange(pixels) + 0.5) * cells / pixels - 0.5).clip(0.0, cells - 1.0)
    before = place.astype(np.int64)
    behind, share = np.minimum(before + 1, cells - 1), (place - before).astype(np.float32)
    return torch.from_numpy(before).to(device), torch.from_numpy(behind).to(device), torch.from_numpy(share).to(device)


@cache
def compute_cell_places(height: int, width: int, offset: int, device: torch.device) -> Tensor:
    """Return each cell's column and row plus `offset`: float32 (2, H * W)."""
    rows, columns = np.mgrid[offset : height + offset, offset : width + offset].astype(np.float32)
    return torch.from_numpy(np.stack([columns.reshape(-1), rows.reshape(-1)])).to(device)


@cache
def number_framed_cells(height: int, width: int, device: torch.device) -> Tensor:
    """Number the cells of a map with a border of one cell, int64 ((H + 2) * (W + 2),); border cells are H * W."""
    cells = np.arange(height * width).reshape(height, width)
    return torch.from_numpy(np.pad(cells, 1, constant_values=height * width).reshape(-1)).to(device)


@cache
def integers(device: torch.device, *values: int) -> Tensor:
    """Return int32 (n,) numbers on a device."""
    return torch.tensor(values, dtype=torch.int32, device=device)


@cache
def compute_corner_offsets(right: int, down: int, device: torch.device) -> Tensor:
    """Return the offsets from a cell to itself and its right, lower and lower-right neighbours: int64 (4, 1)."""
    return torch.tensor([[0], [right], [down], [down + right]], device=device)


@cache
def counted(count: int, device: torch.device) -> Tensor:
    """Return the numbers 0 to count - 1 on a device, int64 (count,)."""
    return torch.arange(count, device=device)
