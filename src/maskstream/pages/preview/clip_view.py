"""One clip as the templates see it: pictures, times, counts and paths, no arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...pipelines.flow.base import Flow
from ...pipelines.modalities.video.batch import VideoBatch
from ..figures.flow_colours import flow_picture, flow_scale, usable
from ..figures.pictures import Bool, Grid, UInt8, cell_size, darken, data_uri, resize, token_pixels
from ..figures.tokens import ClipTokens, TokenCounts, outline_path, runs_path


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameView:
    """One frame: its number from 1, time in seconds, and pictures as `data:` addresses (None: there is none)."""

    number: int
    pts_s: float
    picture: str
    seen: str | None
    flow: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepView:
    """One step of the grid: the frames that share a slice of tokens, and the outline path of its visible ones."""

    number: int
    frames: tuple[FrameView, ...]
    outline: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowView:
    """The length in pixels that is drawn in full colour, and the share of cells without a vector."""

    scale_px: float
    missing_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelineView:
    """Steps (rows) by places of the picture (columns): paths over unit cells, and the dwell map's path per level."""

    visible: str
    undecoded: str
    dwell: tuple[tuple[float, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipView:
    """Everything that a page shows of one clip; what the batch has not is None. view: as in `SampleName`."""

    key: str
    label: int
    label_name: str | None
    steps: tuple[StepView, ...]
    counts: TokenCounts | None
    timeline: TimelineView | None
    flow: FlowView | None
    view: int | None = None

    @property
    def frames(self) -> tuple[FrameView, ...]:
        return tuple(frame for step in self.steps for frame in step.frames)


def clip_view(batch: VideoBatch, i: int, grid: Grid, side_px: float, label_names: Sequence[str] = ()) -> ClipView:
    """Clip `i` of `batch`, in pictures whose longer side is about `side_px`."""
    cell = cell_size(grid, side_px)
    size = (grid.shape[1] * cell[0], grid.shape[2] * cell[1])
    frames = resize(batch.video[i].cpu().numpy(), *size)
    tokens = ClipTokens.of(batch.mask, i, grid) if batch.mask else None
    seen = darken(frames, token_pixels(tokens.masked, grid, cell)) if tokens else None
    flow, flow_pictures = _flow(batch.flow, i, size)
    label = int(batch.label[i])
    return ClipView(
        key=batch.key[i],
        label=label,
        label_name=label_names[label] if 0 <= label < len(label_names) else None,
        steps=_steps(grid, frames, seen, flow_pictures, batch.pts_s[i].tolist(), tokens),
        counts=tokens.counts if tokens else None,
        timeline=_timeline(tokens, grid) if tokens else None,
        flow=flow,
    )


def _steps(
    grid: Grid,
    frames: UInt8,
    seen: UInt8 | None,
    flow: list[UInt8],
    pts_s: Sequence[float],
    tokens: ClipTokens | None,
) -> tuple[StepView, ...]:
    views = [
        FrameView(
            number=f + 1,
            pts_s=pts_s[f],
            picture=data_uri(frames[f]),
            seen=None if seen is None else data_uri(seen[f]),
            flow=data_uri(flow[f - 1]) if flow and f else None,
        )
        for f in range(len(frames))
    ]
    outlines = [outline_path(~m) for m in tokens.masked.reshape(grid.shape)] if tokens else [None] * grid.shape[0]
    pt = grid.patch[0]
    return tuple(
        StepView(number=s + 1, frames=tuple(views[s * pt : (s + 1) * pt]), outline=outlines[s])
        for s in range(grid.shape[0])
    )


def _flow(flow: Flow | None, i: int, size: tuple[int, int]) -> tuple[FlowView | None, list[UInt8]]:
    """The flow of clip `i`: what is said of it, and a picture for each frame but the first."""
    if flow is None or flow.vectors.shape[1] == 0:
        return None, []
    vectors: npt.NDArray[np.float32] = flow.vectors[i].float().cpu().numpy()
    valid: Bool = flow.valid[i].cpu().numpy().astype(bool)
    scale_px = flow_scale(vectors, valid)
    view = FlowView(scale_px=scale_px, missing_share=1.0 - float(usable(vectors, valid).mean()))
    return view, [flow_picture(v, ok, scale_px, size) for v, ok in zip(vectors, valid, strict=True)]


def _timeline(tokens: ClipTokens, grid: Grid) -> TimelineView:
    steps = grid.shape[0]
    by_step = (steps, -1)
    dwell = tokens.counts.dwell
    return TimelineView(
        visible=runs_path(~tokens.masked.reshape(by_step)),
        undecoded=runs_path((tokens.masked & ~tokens.targeted).reshape(by_step)),
        dwell=tuple((n / steps, runs_path(dwell == n)) for n in range(1, steps + 1) if (dwell == n).any()),
    )
