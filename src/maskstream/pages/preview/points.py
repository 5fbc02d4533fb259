"""The preview of point clouds: from two angles, with the tokens that hold points and the mask over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...pipelines.modalities.points.batch import PointsBatch
from ...pipelines.modalities.points.tokens import VoxelTokens
from ...pipelines.modalities.points.voxels import point_tokens, voxel_places
from ...shards.format.manifest import component_of
from ..figures.cloud_picture import ABOVE, BOX, FADED, INK, SEEN, SIDE, cloud_picture, marked
from ..figures.pictures import Bool, UInt8, data_uri
from ..figures.tokens import MaskCounts, MaskRow
from ..page import environment, render
from .opened import Opened, SampleName

Float32s = npt.NDArray[np.float32]

_SIDE_PX = 360
_HIDDEN_BOX, _EMPTY_BOX = (0xDD, 0xE0, 0xE5), (0x7F, 0xB2, 0xD8)


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudFigure:
    """One thing from two angles: a caption and `data:` addresses."""

    title: str
    words: str
    pictures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudView:
    """One cloud. occupied: tokens that hold points, None where tokens are not voxels; seen: those that are visible."""

    name: SampleName
    points: int
    stored: int
    figures: tuple[CloudFigure, ...]
    counts: MaskCounts | None
    occupied: int | None
    seen: int | None
    points_seen: int | None


def points_page(opened: Opened) -> str:
    """One HTML file, complete in itself, about every cloud of the batch."""
    sampler, batch = opened.loader.sampler, opened.batch
    tokens = sampler.tokens
    if isinstance(tokens, VoxelTokens):
        side = tokens.resolution // tokens.patch
        words = f"{side} x {side} x {side} of {tokens.patch}³ voxels, the cube has {tokens.resolution}³"
    else:
        words = f"{tokens.groups} groups of {tokens.size} points, which the model finds"
    facts = opened.facts(
        points=f"{sampler.select.points:,} of a cloud", tokens=words, augmentation=repr(sampler.augment)
    )
    return render(
        environment(),
        "preview_points.html.j2",
        title=opened.title,
        facts=facts,
        clouds=_views(opened, batch, tokens if isinstance(tokens, VoxelTokens) else None),
    )


def _views(opened: Opened, batch: PointsBatch, tokens: VoxelTokens | None) -> list[CloudView]:
    stored = component_of(opened.manifest.components, ("points",)).facts["n_points"]
    views = []
    for row, index in enumerate(opened.indexes()):
        points = batch.points[row, :, :3].numpy()
        mask = MaskRow.of(batch.mask, row) if batch.mask else None
        name = opened.name(row)
        views.append(
            plain_view(name, points, int(stored[index]), mask)
            if tokens is None
            else voxel_view(name, points, int(stored[index]), mask, tokens)
        )
    return views


def plain_view(name: SampleName, points: Float32s, stored: int, mask: MaskRow | None) -> CloudView:
    """A cloud float32 (N, 3) whose tokens the model finds."""
    return CloudView(
        name=name,
        points=len(points),
        stored=stored,
        figures=(_figure("The cloud", "As the model gets it.", points, INK),),
        counts=None if mask is None else mask.counts,
        occupied=None,
        seen=None,
        points_seen=None,
    )


def voxel_view(name: SampleName, points: Float32s, stored: int, mask: MaskRow | None, tokens: VoxelTokens) -> CloudView:
    """A cloud float32 (N, 3) in voxels, with what the mask hides of it."""
    places = voxel_places(torch.from_numpy(points)[None], tokens.resolution)
    token = point_tokens(places, tokens.resolution, tokens.patch)[0].numpy()
    occupied = np.zeros(tokens.grid.size, dtype=bool)
    occupied[token] = True
    half = tokens.resolution / 2
    at: Float32s = places[0].numpy() - np.float32(half)
    figures = [_figure("The cloud", f"{len(points):,} points, as the model gets them.", at, INK, reach=half)]
    words = f"{int(occupied.sum()):,} of {occupied.size:,} tokens hold points."
    figures.append(_figure("Occupied tokens", words, at, INK, _Boxes.of(tokens, (occupied, BOX)), half))
    if mask is not None:
        seen = ~mask.masked
        words = (
            f"In orange {int((seen & occupied).sum()):,} visible tokens with points, in blue "
            f"{int((seen & ~occupied).sum()):,} that are empty; grey ones and their points are hidden."
        )
        kinds = ((~seen & occupied, _HIDDEN_BOX), (seen & ~occupied, _EMPTY_BOX), (seen & occupied, BOX))
        colours = marked(at, seen[token], SEEN, FADED)
        figures.append(_figure("What the encoder sees", words, at, colours, _Boxes.of(tokens, *kinds), half))
    return CloudView(
        name=name,
        points=len(points),
        stored=stored,
        figures=tuple(figures),
        counts=None if mask is None else mask.counts,
        occupied=int(occupied.sum()),
        seen=None if mask is None else int((~mask.masked & occupied).sum()),
        points_seen=None if mask is None else int((~mask.masked[token]).sum()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Boxes:
    """The cubes of tokens, around the middle of the cube of voxels: lowest corners float32 (n, 3), an edge, colours."""

    low: Float32s
    side: float
    colours: UInt8

    @classmethod
    def of(cls, tokens: VoxelTokens, *kinds: tuple[Bool, tuple[int, int, int]]) -> _Boxes:
        """Those that are chosen, bool (N,) of all tokens, in a colour; a voxel reaches half a unit around its place."""
        places = [np.stack(np.unravel_index(np.flatnonzero(chosen), tokens.grid.shape), axis=1) for chosen, _ in kinds]
        corners = np.concatenate(places).astype(np.float32) * tokens.patch
        colours = np.concatenate([np.full((len(at), 3), colour) for at, (_, colour) in zip(places, kinds, strict=True)])
        low = (corners - 0.5 - tokens.resolution / 2).astype(np.float32)
        return cls(low=low, side=float(tokens.patch), colours=colours.astype(np.uint8))


def _figure(
    title: str,
    words: str,
    points: Float32s,
    colours: UInt8 | tuple[int, int, int],
    boxes: _Boxes | None = None,
    reach: float | None = None,
) -> CloudFigure:
    """The points from both angles; with `reach` the middle of the picture is (0, 0, 0)."""
    cubes: dict[str, Any] = {}
    if boxes is not None:
        cubes = {"boxes": boxes.low, "box_side": boxes.side, "box_colours": boxes.colours}
    pictures = [
        cloud_picture(points, colours, **cubes, reach=reach, view=view, side_px=_SIDE_PX) for view in (SIDE, ABOVE)
    ]
    return CloudFigure(title=title, words=words, pictures=tuple(map(data_uri, pictures)))
