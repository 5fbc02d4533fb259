"""Schemes for video, drawn on a clip."""

from collections.abc import Sequence

import numpy as np

from maskstream.pages.figures.card import Figure, join_picture_row
from maskstream.pages.figures.figures import MaskRow
from maskstream.pages.figures.pictures import UInt8, draw_masked_picture, resize
from maskstream.pipelines.flow import dis_flow
from maskstream.pipelines.masks import Cues, MaskBatch, TokenGrid

from .scheme import Drawn, GalleryScene, GallerySection, constant, join_token_maps

SIDE_PX = 224
SHOWN_PX = 112
ACROSS = 4


def make_scene(video: UInt8) -> GalleryScene:
    """Return the clip (T, S, S, 3) in cubes, with its flow."""
    clip = resize(video, SIDE_PX, SIDE_PX)
    grid = TokenGrid.video(len(clip), SIDE_PX, SIDE_PX)

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        return tuple(panel for shot, mask in drawn for panel in paint_clip(clip, mask, grid, shot.caption))

    cues = Cues(frames=clip, flow=dis_flow(clip).vectors, cuts=np.zeros(len(clip) - 1, dtype=np.bool_))
    return GalleryScene(grid=grid, cues=(cues,), paint=paint)


KIND = GallerySection(
    title="Video",
    words="A clip of 16 frames at 224 pixels in cubes of 2 x 16 x 16: eight time steps of 14 x 14 tokens. The page "
    "shows the first frame of each step; bright tokens are visible to the encoder.",
    missing="clip",
    needs=("video",),
    axes=(("t", "h", "w"),),
    scenes=lambda media, seed: constant(make_scene(np.asarray(media.video))),
)


def paint_clip(clip: UInt8, mask: MaskBatch, grid: TokenGrid, title: str) -> tuple[Figure, ...]:
    """Draw the first frame of each time step, masked, and a map of the targets if they differ from the hidden tokens.

    Args:
        clip: The clip.
        mask: The mask.
        grid: Grid of the tokens.
        title: Title of the figure.
    """
    hidden = mask.masked[0].numpy().reshape(grid.shape)
    frames = resize(clip[:: grid.patch[0]], SHOWN_PX, SHOWN_PX)
    items = (draw_masked_picture(frames[step], plane, alt=f"time step {step + 1}") for step, plane in enumerate(hidden))
    panels: list[Figure] = [join_picture_row(*items, across=ACROSS, title=title)]
    planes = MaskRow.of(mask, 0).targeted.reshape(grid.shape)
    if not np.array_equal(planes, hidden):
        layers = (("visible", ~hidden), ("target", planes & hidden), ("skipped", ~planes & hidden))
        keys = ("visible", "reconstructed", "hidden, not reconstructed")
        panels.append(join_token_maps(layers, 2 * ACROSS, title="Targets of the decoder", keys=keys))
    return tuple(panels)
