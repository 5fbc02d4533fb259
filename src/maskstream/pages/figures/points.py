"""Figures of clouds: from two angles, with the tokens that contain points, the mask over them, and completions.

Clouds are drawn as dots, the nearer ones last and darker, with the boxes of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch

from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.read import PointAugment
from maskstream.pipelines.modalities.points.tokens import GroupTokens, VoxelTokens, number_point_tokens, scale_to_voxels
from maskstream.shards.arrays import Bools, Float32s, Int32s, UInt8s
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest

from .card import Card, Fact, PictureGrid, join_picture_row
from .figures import MaskRow, find_sample, received, sample_card
from .pictures import draw_row, picture
from .words import plural

INK, SEEN, MADE, FADED = (0x3A, 0x3F, 0x4B), (0xC8, 0x4B, 0x1E), (0x1F, 0x6F, 0xB4), (0xB9, 0xBD, 0xC6)
"""Colours of points: original, visible to the encoder, predicted by a model, and hidden."""

BOX = (0xE0, 0x9A, 0x7C)

_PAPER = 255
SIDE = np.array([[0.82, 0.0, -0.57], [0.22, -0.92, 0.32], [0.53, 0.39, 0.76]], dtype=np.float32)
ABOVE = np.array([[-0.57, 0.0, -0.82], [0.67, -0.57, -0.47], [-0.47, -0.82, 0.33]], dtype=np.float32)
"""Camera directions, as right, down and towards the viewer, for clouds whose y is up: from a side, and from the next
side, higher up.
"""
_CORNERS = np.array(list(product((0, 1), repeat=3)), dtype=np.float32)
_EDGES = np.array([(i, j) for i in range(8) for j in range(i) if (i ^ j) in (1, 2, 4)])


def draw_cloud(
    points: Float32s,
    colours: UInt8s | tuple[int, int, int] = INK,
    *,
    boxes: Float32s | None = None,
    box_side: float = 0.0,
    box_colours: UInt8s | tuple[int, int, int] = BOX,
    reach: float | None = None,
    view: Float32s = SIDE,
    side_px: int = 240,
) -> UInt8s:
    """Draw points, seen from the side and above.

    Args:
        points: float32 (N, 3).
        colours: One colour, or uint8 (N, 3).
        boxes: Lowest corners of cubes, float32 (n, 3), drawn in order behind the points.
        box_side: Edge of the cubes.
        box_colours: One colour, or uint8 (n, 3).
        reach: Distance from the centre (0, 0, 0) to the edge of the drawn cube, for several clouds at one scale; by
            default everything fits.
        view: Rotation to the view.
        side_px: Side of the image in pixels.

    Returns:
        uint8 (side_px, side_px, 3).
    """
    middle = np.zeros(3, np.float32) if reach is not None else (points.min(axis=0) + points.max(axis=0)) / 2
    reach = reach if reach is not None else max(float(np.abs(points - middle).max()), 1e-6)
    scale = side_px / (2 * 1.5 * reach)
    sheet = np.full((side_px, side_px, 3), _PAPER, dtype=np.uint8)

    def placed(xyz: Float32s) -> tuple[Int32s, Float32s]:
        turned = (xyz - middle) @ view.T
        return np.round(turned[:, :2] * scale + side_px / 2).astype(np.int32), turned[:, 2]

    if boxes is not None:
        lines = np.broadcast_to(np.asarray(box_colours), (len(boxes), 3)).tolist()
        for low, colour in zip(boxes, lines, strict=True):
            corners, _ = placed(low + _CORNERS * np.float32(box_side))
            cv2.polylines(sheet, list(corners[_EDGES]), False, colour, 1, cv2.LINE_AA)
    at, near = placed(points[:, :3])
    light = 0.55 * (1 - np.clip(near / (1.2 * reach) / 2 + 0.5, 0, 1))[:, None]
    shades = (np.asarray(colours, dtype=np.float32) * (1 - light) + 255 * light).astype(np.uint8)
    radius = max(1, round(side_px / 160))
    for i in np.argsort(near, kind="stable").tolist():
        cv2.circle(sheet, at[i].tolist(), radius, shades[i].tolist(), -1, cv2.LINE_AA)
    return sheet


def marked(chosen: Bools, yes: tuple[int, int, int], no: tuple[int, int, int]) -> UInt8s:
    """Return a colour for each point, uint8 (N, 3).

    Args:
        chosen: Points to mark, bool (N,).
        yes: Colour of marked points.
        no: Colour of other points.
    """
    return np.where(chosen[:, None], np.array(yes, np.uint8), np.array(no, np.uint8))


Colour = tuple[int, int, int]

_SIDE_PX = 360
_HIDDEN_BOX, _EMPTY_BOX = (0xDD, 0xE0, 0xE5), (0x7F, 0xB2, 0xD8)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsFigures:
    """Figures of clouds whose tokens are voxels, or groups that the model finds; `manifest` has the number of stored
    points.
    """

    tokens: VoxelTokens | GroupTokens
    augment: PointAugment
    manifest: Manifest
    label_names: Sequence[str] = ()

    def about(self, batch: PointsBatch) -> tuple[str, dict[str, str]]:
        """Describe the clouds and their tokens."""
        tokens = self.tokens
        if isinstance(tokens, VoxelTokens):
            side = tokens.resolution // tokens.patch
            words = f"{side} x {side} x {side} of {tokens.patch}³ voxels, the cube has {tokens.resolution}³"
        else:
            words = f"{tokens.groups} groups of {tokens.size} points, which the model finds"
        lede = (
            f"{received(len(batch), 'cloud')}: a random selection of each cloud's points, augmented and masked. "
            "Each is drawn from one side, then from the next side and higher up; nearer points are darker."
        )
        points = f"{batch.points.shape[1]:,} of a cloud"
        return lede, {"points": points, "tokens": words, "augmentation": repr(self.augment)}

    def sample(self, batch: PointsBatch, i: int) -> Card:
        """Draw the cloud and, for voxels, the occupied and the hidden tokens.

        Args:
            batch: The batch.
            i: Row.
        """
        points, key = batch.points[i, :, :3].numpy(), batch.key[i]
        mask = MaskRow.of(batch.mask, i) if batch.mask else None
        if isinstance(self.tokens, VoxelTokens):
            figures, more = draw_voxels(points, mask, self.tokens, key)
        else:
            figures, more = (_draw_figure("The cloud", "As the model receives it.", key, points, INK),), ()
        n_points = component_of(self.manifest.components, ("points",)).facts["n_points"]
        stored = int(n_points[find_sample(self.manifest, key)])
        words = f"{plural(len(points), 'point')} of the {stored:,} that are stored"
        return sample_card(batch, i, words, figures, {"": mask}, names=self.label_names, more=more)

    def compared(self, batch: PointsBatch, made: PointsBatch, i: int) -> Card:
        """Draw the cloud, its visible part, and the model's prediction.

        Args:
            batch: The original batch.
            made: The predicted batch; for groups the points of the visible ones, then of the predicted ones, and for
                voxels as many points as the cloud has.
            i: Row.
        """
        points, completed = (one.points[i, :, :3].float() for one in (batch, made))
        reach, key = float(points.abs().max()), batch.key[i]
        items: dict[str, tuple[Float32s, UInt8s | Colour]] = {"original": (points.numpy(), INK)}
        if isinstance(self.tokens, VoxelTokens) or batch.mask is None:
            items["the model's"] = completed.clamp(-reach, reach).numpy(), MADE
        else:
            n = batch.mask.visible.shape[1] * self.tokens.size
            at = np.concatenate((points.numpy(), completed[:n].numpy()))
            items["the encoder saw"] = at, marked(np.arange(len(at)) >= len(points), SEEN, FADED)
            items["completed"] = completed.numpy(), marked(np.arange(len(completed)) < n, SEEN, MADE)
        shown = {word: draw_cloud(at, colours, reach=reach) for word, (at, colours) in items.items()}
        return Card(key=key, words=plural(len(points), "point"), figures=(draw_row(shown, key),))


def draw_voxels(
    points: Float32s, mask: MaskRow | None, tokens: VoxelTokens, key: str
) -> tuple[tuple[PictureGrid, ...], tuple[Fact, ...]]:
    """Draw a cloud in voxels with its hidden tokens, and count its tokens.

    Args:
        points: float32 (N, 3).
        mask: The mask, or None.
        tokens: Settings of the voxels.
        key: Key of the sample.
    """
    places = scale_to_voxels(torch.from_numpy(points)[None], tokens.resolution)
    token = number_point_tokens(places, tokens.resolution, tokens.patch)[0].numpy()
    occupied = np.zeros(tokens.grid.size, dtype=bool)
    occupied[token] = True
    half = tokens.resolution / 2
    at: Float32s = places[0].numpy() - np.float32(half)
    figures = [
        _draw_figure("The cloud", f"{len(points):,} points, as the model receives them.", key, at, INK, reach=half)
    ]
    words = f"{int(occupied.sum()):,} of {occupied.size:,} tokens contain points."
    boxes = token_boxes(tokens, (occupied, BOX))
    figures.append(_draw_figure("Occupied tokens", words, key, at, INK, reach=half, **boxes))
    if mask is None:
        return tuple(figures), (Fact(name="Tokens with points", value=f"{int(occupied.sum()):,}"),)
    seen = ~mask.masked
    words = (
        f"Orange: {int((seen & occupied).sum()):,} visible tokens with points; blue: "
        f"{int((seen & ~occupied).sum()):,} visible tokens without; grey tokens and their points are hidden."
    )
    boxes = token_boxes(tokens, (~seen & occupied, _HIDDEN_BOX), (seen & ~occupied, _EMPTY_BOX), (seen & occupied, BOX))
    colours = marked(seen[token], SEEN, FADED)
    figures.append(_draw_figure("Visible tokens", words, key, at, colours, reach=half, **boxes))
    visible = f"{int((seen & occupied).sum()):,} visible"
    return tuple(figures), (
        Fact(name="Tokens with points", value=f"{int(occupied.sum()):,}", of=visible),
        Fact(name="Points in visible tokens", value=f"{int(seen[token].sum()):,}", of=f"of {len(points):,}"),
    )


def token_boxes(tokens: VoxelTokens, *kinds: tuple[Bools, Colour]) -> dict[str, Any]:
    """Return the cubes of tokens around the centre of the voxels, as arguments of `draw_cloud`.

    A voxel extends half a unit around its position.

    Args:
        tokens: Settings of the voxels.
        kinds: Chosen tokens, bool (N,), and their colour.
    """
    places = [np.stack(np.unravel_index(np.flatnonzero(chosen), tokens.grid.shape), axis=1) for chosen, _ in kinds]
    corners = np.concatenate(places).astype(np.float32) * tokens.patch
    colours = np.concatenate([np.full((len(at), 3), colour) for at, (_, colour) in zip(places, kinds, strict=True)])
    low = (corners - 0.5 - tokens.resolution / 2).astype(np.float32)
    return {"boxes": low, "box_side": float(tokens.patch), "box_colours": colours.astype(np.uint8)}


def _draw_figure(
    title: str, words: str, key: str, points: Float32s, colours: UInt8s | Colour, **more: Any
) -> PictureGrid:
    """Draw the points from both angles; with `reach` the centre of the image is (0, 0, 0)."""
    pictures = [draw_cloud(points, colours, view=view, side_px=_SIDE_PX, **more) for view in (SIDE, ABOVE)]
    items = (picture(pixels, f"{title} of {key}, angle {angle}") for angle, pixels in enumerate(pictures, start=1))
    return join_picture_row(*items, title=title, words=words)
