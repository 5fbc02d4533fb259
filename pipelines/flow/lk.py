"""Flow of whole batches in torch, without weights: Lucas-Kanade with a smoothness term, on an image pyramid.

Each level, from coarse to fine, starts from the previous level's flow and solves three times for the residual: the
earlier frame is warped along the flow, the equations of both directions are summed over a window, weighted against
outliers, and solved together with the mean of the surrounding flow; a median filter then preserves edges. The same
operations run on a CPU and on a CUDA device. Sources: Lucas and Kanade 1981; Bruhn, Weickert and Schnoerr 2005 (windows
combined with smoothness); Sun, Roth and Black 2010 (the median). On CUDA they form one graph (pipelines/capture.py).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, grid_sample, interpolate, pad

from maskstream.pipelines.capture import Captured, constants
from maskstream.shards.limits import PositiveProportion

from .base import compute_pixel_places, grid_shape
from .source import BatchFlow

USUAL_SIDE, LEAST_SIDE = 64, 8
"""Shorter side in pixels of the finest level, unless `scale` is set, and of the coarsest."""
SOLVES, SWEEPS = 3, 4
"""Warps per level, and smoothing iterations per warp."""
WINDOW, AROUND = 3, 2
"""Radius in cells of the equations' window, and of the mean used for smoothness."""
SMOOTHNESS = 60.0
"""Weight of smoothness relative to squared gradients, in intensity levels (0 to 255) per pixel."""
OUTLIER = 2.0
"""Difference between the frames, in levels, above which an equation is down-weighted."""
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lk(BatchFlow):
    """Pyramidal Lucas-Kanade flow with smoothness, averaged over cells.

    Attributes:
        cell: Approximate side of a cell in pixels.
        scale: Finest level as a fraction of the clip's size; None is 64 pixels on the shorter side.

    Raises:
        ValueError: `scale` is outside (0, 1], or clips have less than 8 pixels at this scale.
    """

    cell: int = 8
    scale: PositiveProportion | None = None

    def validate(self) -> None:
        grid_shape(self.cell, self.cell, self.cell)

    @property
    def title(self) -> str:
        """Display name."""
        return "Lucas-Kanade"

    def of_clips(self, clips: Tensor) -> Tensor:
        """Compute the backward flow of clips uint8 (B, T, H, W, 3): float32 (B, T-1, 2, h, w), as in `BatchFlow`.

        On a CPU, clips are processed one at a time to stay in cache.
        """
        if clips.device.type == "cpu":
            return torch.cat([self.together(clip[None]) for clip in clips])
        return _captured(self)(clips)

    def together(self, clips: Tensor) -> Tensor:
        """Compute the flow of all clips (B, T, H, W, 3) at once on any device: (B, T-1, 2, h, w)."""
        batch, frames, height, width, _ = clips.shape
        pairs = batch * (frames - 1)
        levels = build_pyramid(clips, self._work(height, width))
        flow = levels[-1].new_zeros(pairs, 2, *levels[-1].shape[-2:])
        for level in reversed(levels):
            grown = (level.shape[-1] / flow.shape[-1], level.shape[-2] / flow.shape[-2])
            flow = interpolate(flow, level.shape[-2:], mode="bilinear", align_corners=False)
            flow = refine(torch.unflatten(level, 0, (batch, frames)), flow * factors(clips, grown))
        grown = (width / flow.shape[-1], height / flow.shape[-2])
        cells = interpolate(flow, grid_shape(height, width, self.cell), mode="area")
        return torch.unflatten(cells * factors(clips, grown), 0, (batch, frames - 1))

    def _work(self, height: int, width: int) -> tuple[int, int]:
        scale = min(USUAL_SIDE / min(height, width), 1.0) if self.scale is None else self.scale
        work = (round(height * scale), round(width * scale))
        if min(work) < LEAST_SIDE:
            raise ValueError(
                f"clips of {width} x {height} pixels at scale {scale:g} are less than {LEAST_SIDE} pixels wide or "
                "high; use a larger scale or larger clips"
            )
        return work


@cache
def _captured(source: Lk) -> Captured:
    return Captured(source.together)


def factors(like: Tensor, of: tuple[float, float]) -> Tensor:
    """Return the factors of flow along x and y, float32 (2, 1, 1), on the device of a tensor."""
    return constants(like.device, *of)[:, None, None]


def build_pyramid(clips: Tensor, work: tuple[int, int]) -> list[Tensor]:
    """Build the grey pyramid of clips uint8 (B, T, H, W, 3): float32 (B T, 1, h, w), at `work` size, then halved
    repeatedly.
    """
    grey = clips.flatten(0, 1).float() @ constants(clips.device, *GREY)
    levels = [adaptive_avg_pool2d(grey[:, None], work)]
    while min(levels[-1].shape[-2:]) >= 2 * LEAST_SIDE:
        height, width = levels[-1].shape[-2:]
        levels.append(adaptive_avg_pool2d(levels[-1], (round(height / 2), round(width / 2))))
    return levels


def refine(frames: Tensor, flow: Tensor) -> Tensor:
    """Refine the flow (B (T-1), 2, h, w) of grey frames (B, T, 1, h, w), in pixels of the level."""
    slopes = torch.cat([frames, *gradients(frames)], dim=2)
    earlier, later = slopes[:, :-1].flatten(0, 1), slopes[:, 1:].flatten(0, 1)
    for _ in range(SOLVES):
        flow = median(solve_step(*build_equations(earlier, later, flow), flow))
    return flow


def gradients(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Compute central differences along x and y of frames (..., 1, h, w), repeating the border."""
    framed = torch.unflatten(pad(frames.flatten(0, 1), (1, 1, 1, 1), mode="replicate"), 0, frames.shape[:2])
    x = (framed[..., 1:-1, 2:] - framed[..., 1:-1, :-2]) / 2
    y = (framed[..., 2:, 1:-1] - framed[..., :-2, 1:-1]) / 2
    return x, y


def build_equations(earlier: Tensor, later: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Build the equations of the residual flow, summed over windows: xx, xy, yy (N, 3, h, w), and the right side (N, 2,
    h, w).

    `earlier` and `later` are the frames of N pairs with their gradients, (N, 3, h, w). Pixels outside the frame have
    weight 0, and differences beyond OUTLIER are down-weighted.
    """
    height, width = flow.shape[-2:]
    place = compute_pixel_places(height, width, flow.device) + flow
    there = ((2 * place + 1) / factors(flow, (width, height)) - 1).movedim(1, -1)
    fetched = grid_sample(earlier, there, padding_mode="border", align_corners=False)
    within = (place >= 0) & (place <= factors(flow, (width - 1, height - 1)))
    inside = within[:, :1] & within[:, 1:]
    difference = fetched[:, :1] - later[:, :1]
    slope = (fetched[:, 1:] + later[:, 1:]) / 2
    weighted = slope * (inside * torch.rsqrt(1 + (difference / OUTLIER).square()))
    products = [weighted[:, :1] * slope, weighted[:, 1:] * slope[:, 1:], weighted * difference]
    summed = around(torch.cat(products, dim=1), WINDOW)
    return summed[:, :3], summed[:, 3:]


def solve_step(matrix: Tensor, right: Tensor, flow: Tensor) -> Tensor:
    """Apply one step of the equations to the flow, pulled towards the mean of its surroundings."""
    own, xy = matrix[:, ::2], matrix[:, 1:2]
    wanted = own * flow + xy * flow.flip(1) - right
    own = own + SMOOTHNESS
    inverse = (own[:, :1] * own[:, 1:] - xy.square()).reciprocal()
    straight, across = own.flip(1) * inverse, xy * inverse
    for _ in range(SWEEPS):
        pulled = torch.add(wanted, around(flow, AROUND), alpha=SMOOTHNESS)
        flow = straight * pulled - across * pulled.flip(1)
    return flow


def around(planes: Tensor, radius: int) -> Tensor:
    """Return the mean around each position in planes (N, C, h, w), ignoring positions outside."""
    return avg_pool2d(planes, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def median(planes: Tensor) -> Tensor:
    """Return the median of the 3 x 3 neighbourhood in planes (N, C, h, w).

    Each row of three is sorted, shared by three neighbourhoods. The median of nine is the median of three values: the
    maximum of the lows, the median of the middles and the minimum of the highs (Smith 1996).
    """
    framed = pad(planes, (1, 1, 1, 1), mode="replicate")
    one, two, three = framed[..., :-2], framed[..., 1:-1], framed[..., 2:]
    less, more = torch.minimum(one, two), torch.maximum(one, two)
    middle = torch.maximum(less, torch.minimum(more, three))
    low, middles, high = (
        (x[..., :-2, :], x[..., 1:-1, :], x[..., 2:, :])
        for x in (torch.minimum(less, three), middle, torch.maximum(more, three))
    )
    lowest = torch.maximum(torch.maximum(low[0], low[1]), low[2])
    greatest = torch.minimum(torch.minimum(high[0], high[1]), high[2])
    return _take_median(lowest, _take_median(*middles), greatest)


def _take_median(one: Tensor, two: Tensor, three: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(one, two), torch.minimum(torch.maximum(one, two), three))
