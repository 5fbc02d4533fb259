"""Schemes for skeletons, drawn on a motion capture."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskstream.pages.figures.card import Figure
from maskstream.pages.figures.pose import skeletons
from maskstream.pipelines.masks import TokenGrid
from maskstream.shards.media.h36m import JOINTS

from .scheme import Drawn, GalleryScene, GallerySection, constant

SHOWN, STEP, FIRST = 12, 12, 60


def make_scene(walk: npt.NDArray[np.float32]) -> GalleryScene:
    """Return frames of the capture side by side."""
    poses = walk[FIRST : FIRST + SHOWN * STEP : STEP]
    flat = np.stack([poses[:, :1, 1] - poses[..., 1], -poses[..., 2]], axis=-1)

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        return tuple(
            skeletons(flat, hidden=mask.masked[0].numpy().reshape(grid.shape), title=shot.caption)
            for shot, mask in drawn
        )

    grid = TokenGrid(axes=("frame", "joint"), shape=(SHOWN, len(JOINTS)), patch=(1, 1))
    return GalleryScene(grid=grid, paint=paint)


KIND = GallerySection(
    title="Skeletons",
    words="Motion capture of a person who kneels down: 12 frames, 0.4 s apart, of 17 joints in Human3.6M's order. "
    "Large dots are visible to the encoder.",
    missing="motion capture",
    needs=("walk",),
    axes=(("frame", "joint"),),
    scenes=lambda media, seed: constant(make_scene(np.asarray(media.walk))),
)
