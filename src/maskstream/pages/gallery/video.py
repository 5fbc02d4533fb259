"""Schemes for video, drawn on a clip."""

from collections.abc import Sequence

import numpy as np

from maskstream.pages.figures.card import Figure, PictureGrid, Section
from maskstream.pages.figures.pictures import UInt8, masked_picture, resize
from maskstream.pipelines.flow import dis_flow
from maskstream.pipelines.masks import Cues, MaskBatch, TokenGrid

from .scheme import Drawn, GalleryScene, Media, scheme_card, schemes_on, token_maps

SIDE_PX = 224
SHOWN_PX = 112
ACROSS = 4
TITLE = "Video"
LEDE = (
    "A clip of 16 frames at 224 pixels in cubes of 2 x 16 x 16: eight time steps of 14 x 14 tokens. The first frame of "
    "each step is shown; bright tokens are what the encoder sees."
)

AXES = (("t", "h", "w"),)


def section(media: Media, seed: int) -> Section:
    """The section with its cards, or with the data that is missing."""
    if media.video is None:
        return Section(title=TITLE, words=LEDE, missing="clip")
    scene = make_scene(media.video)
    return Section(title=TITLE, words=LEDE, cards=tuple(scheme_card(s, scene, seed) for s in schemes_on(*AXES)))


def make_scene(video: UInt8) -> GalleryScene:
    """The clip (T, S, S, 3) in cubes, with its flow."""
    clip = resize(video, SIDE_PX, SIDE_PX)
    grid = TokenGrid.video(len(clip), SIDE_PX, SIDE_PX)

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        return tuple(panel for shot, mask in drawn for panel in paint_clip(clip, mask, grid, shot.caption))

    cues = Cues(frames=clip, flow=dis_flow(clip).vectors, cuts=np.zeros(len(clip) - 1, dtype=np.bool_))
    return GalleryScene(grid=grid, cues=(cues,), paint=paint)


def paint_clip(clip: UInt8, mask: MaskBatch, grid: TokenGrid, title: str) -> tuple[Figure, ...]:
    """The first frame of each time step, masked; and a map of the targets where they are not the hidden tokens."""
    hidden = mask.masked[0].numpy().reshape(grid.shape)
    frames = resize(clip[:: grid.patch[0]], SHOWN_PX, SHOWN_PX)
    items = tuple(
        masked_picture(frame, plane, alt=f"time step {step + 1}")
        for step, (frame, plane) in enumerate(zip(frames, hidden, strict=True))
    )
    panels: list[Figure] = [PictureGrid(items=items, across=ACROSS, title=title)]
    target = np.zeros(hidden.size, dtype=np.bool_)
    target[mask.target[0][mask.target_valid[0]].numpy()] = True
    planes = target.reshape(grid.shape)
    if not np.array_equal(planes, hidden):
        layers = (("visible", ~hidden), ("target", planes & hidden), ("skipped", ~planes & hidden))
        keys = ("visible", "reconstructed", "hidden, not reconstructed")
        panels.append(token_maps(layers, 2 * ACROSS, title="What the decoder reconstructs", keys=keys))
    return tuple(panels)
