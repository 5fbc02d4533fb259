"""Schemes for skeletons, drawn on a motion capture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...pipelines.masks import TokenGrid
from ..figures.card import Drawing, Figure, Section
from .media import Media, Motion
from .project import Floats, dots, lines
from .scheme import Drawn, Scene, scheme_card, schemes_on

SHOWN, STEP, FIRST = 12, 12, 60
ACROSS, GAP, TALL = 6, 96.0, 150.0
TITLE = "Skeletons"
LEDE = (
    "A motion capture of a person who kneels down: 12 frames, 0.4 s apart, of 17 joints in Human3.6M's order. Large "
    "dots are what the encoder sees."
)
JOINTS = (
    "Hips", "RightHip", "RightKnee", "RightAnkle", "LeftHip", "LeftKnee", "LeftAnkle", "Chest", "Chest2", "Neck",
    "HeadEnd", "LeftShoulder", "LeftElbow", "LeftWrist", "RightShoulder", "RightElbow", "RightWrist",
)  # fmt: skip
"""The joints of Human3.6M, in its order, by the names of the capture."""
LINKED_TO = (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
BONES = np.array(list(enumerate(LINKED_TO)))[1:]

AXES = (("frame", "joint"),)


def section(media: Media, seed: int) -> Section:
    """The section with its cards, or with the data that is missing."""
    if media.walk is None:
        return Section(title=TITLE, words=LEDE, missing="motion capture")
    scene = scene_of(media.walk)
    return Section(title=TITLE, words=LEDE, cards=tuple(scheme_card(s, scene, seed) for s in schemes_on(*AXES)))


def scene_of(walk: Motion) -> Scene:
    """Frames of the capture side by side."""
    positions, _, names = walk
    poses = positions[FIRST : FIRST + SHOWN * STEP : STEP, [names.index(joint) for joint in JOINTS]]
    flat = np.stack([poses[..., 2] - poses[:, :1, 2], -poses[..., 1]], axis=-1)
    flat[..., 1] -= flat[..., 1].min()
    scale = (TALL - 12) / flat[..., 1].max()
    frame = np.arange(SHOWN)
    corner = np.stack([GAP * (frame % ACROSS + 0.5), TALL * (frame // ACROSS) + 6], axis=1)
    placed = flat * scale + corner[:, None]

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        return tuple(
            skeletons(placed, mask.masked[0].numpy().reshape(grid.shape), shot.caption) for shot, mask in drawn
        )

    grid = TokenGrid(axes=("frame", "joint"), shape=(SHOWN, len(JOINTS)), patch=(1, 1))
    return Scene(grid=grid, paint=paint)


def skeletons(placed: Floats, hidden: npt.NDArray[np.bool_], title: str) -> Drawing:
    """Skeletons (T, J, 2) with the bones between visible joints drawn strong."""
    pale, strong = [], []
    for frame, gone in zip(placed, hidden, strict=True):
        whole = ~gone[BONES].any(axis=1)
        pale.append(lines(frame, BONES[~whole]))
        strong.append(lines(frame, BONES[whole]))
    return Drawing(
        paths=(
            ("line-hidden", "".join(pale)),
            ("line-visible", "".join(strong)),
            ("dot-hidden", dots(placed[hidden])),
            ("dot-visible", dots(placed[~hidden])),
        ),
        width=ACROSS * GAP,
        height=TALL * -(-SHOWN // ACROSS),
        alt="skeletons with visible joints",
        title=title,
        keys=(("dot-visible", "visible joints"), ("dot-hidden", "hidden")),
    )
