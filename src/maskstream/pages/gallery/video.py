"""Schemes for video, drawn on a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...pipelines.flow import dis_flow
from ...pipelines.masks import Cues, TokenGrid
from ...pipelines.masks.core.batch import MaskBatch
from ..figures.pictures import UInt8, resize
from .media import Media
from .panels import Panel, Pictures, masked_picture, token_maps
from .scheme import Drawn, Scene, Scheme, Section, Shot, cards

SIDE_PX = 224
SHOWN_PX = 112
ACROSS = 4
TITLE = "Video"
LEDE = (
    "A clip of 16 frames at 224 pixels in cubes of 2 x 16 x 16: eight time steps of 14 x 14 tokens. The first frame of "
    "each step is shown; bright tokens are what the encoder sees."
)

SCHEMES = (
    Scheme(
        name="Tube",
        source="VideoMAE, sec. 3.3",
        says="One map of the picture for the whole clip, so that nothing can be copied from another frame.",
        call="masks.Tube(ratio=0.9)",
        command="tube",
        on="clip",
    ),
    Scheme(
        name="Random",
        source="MAE-ST, sec. 3",
        says="Tokens anywhere in space and time, without structure.",
        call="masks.Random(ratio=0.9)",
        command="random",
        on="clip",
    ),
    Scheme(
        name="Motion-guided",
        source="MGMAE, sec. 3.2",
        says="A map of the middle frame, carried along the optical flow: what is visible stays on the things it shows.",
        call="masks.MotionGuided(ratio=0.9)",
        command="motion-guided",
        on="clip",
    ),
    Scheme(
        name="Dual",
        source="VideoMAE V2, sec. 3.2",
        says="A tube for the encoder; the decoder skips running cells, which turn by one place from step to step.",
        call="masks.Dual(encoder=masks.Tube(ratio=0.9), decoder=masks.RunningCell(ratio=0.5))",
        command="videomae2",
        on="clip",
    ),
    Scheme(
        name="Frames",
        source="MAE-ST, its time-only sampling",
        says="Whole time steps are hidden.",
        call='masks.Frames(ratio=0.75, axis="t")',
        command="frames",
        on="clip",
    ),
    Scheme(
        name="Context and variable ratio",
        source="MaskViT, sec. 3.3",
        says="The first step is context, all visible; of each other one a share drawn from [0.5, 1) is hidden.",
        call="masks.Padded(mask=masks.Context(mask=masks.PerFrame(ratio=masks.Uniform(low=0.5, high=1.0))))",
        command="maskvit",
        on="clip",
    ),
    Scheme(
        name="Multi-block",
        source="V-JEPA, multi-block masking",
        says="Two masks for one clip: the union of eight small blocks, and of two large ones.",
        call=(
            "masks.Padded(mask=masks.ByView(masks=(masks.MultiBlock(), masks.MultiBlock(blocks=2, scale=(0.7, 0.7)))))"
        ),
        command="v-jepa",
        on="clip",
        shots=(Shot(caption="View 1: short-range"), Shot(caption="View 2: long-range", view=1)),
    ),
    Scheme(
        name="Curriculum",
        source="DiffMAViL, masking ratio curriculum",
        says="The ratio falls along the run; with a token budget the batch grows and shrinks with it.",
        call="masks.Random(ratio=masks.Linear(start=0.9, end=0.8))",
        command="diffmavil",
        on="clip",
        shots=(Shot(caption="First batch"), Shot(caption="Last batch", progress=1.0)),
    ),
)


def section(media: Media, seed: int) -> Section:
    """The cards, or why there are none."""
    if media.video is None:
        return Section(title=TITLE, lede=LEDE, cards=(), missing="a clip")
    return Section(title=TITLE, lede=LEDE, cards=cards(SCHEMES, scenes(media.video), seed))


def scenes(video: UInt8) -> dict[str, Scene]:
    """The clip (T, S, S, 3) in cubes, with its flow."""
    clip = resize(video, SIDE_PX, SIDE_PX)
    grid = TokenGrid.video(len(clip), SIDE_PX, SIDE_PX)

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Panel, ...]:
        return tuple(panel for shot, mask in drawn for panel in paint_clip(clip, mask, grid, shot.caption))

    return {"clip": Scene(grid=grid, cues=(Cues(flow=dis_flow(clip).vectors),), paint=paint)}


def paint_clip(clip: UInt8, mask: MaskBatch, grid: TokenGrid, title: str) -> tuple[Panel, ...]:
    """The first frame of each step with what is hidden, and where the targets are others than that, a map of them."""
    hidden = mask.masked[0].numpy().reshape(grid.shape)
    frames = resize(clip[:: grid.patch[0]], SHOWN_PX, SHOWN_PX)
    items = tuple(
        masked_picture(frame, plane, alt=f"time step {step + 1}")
        for step, (frame, plane) in enumerate(zip(frames, hidden, strict=True))
    )
    panels: list[Panel] = [Pictures(items=items, across=ACROSS, title=title)]
    target = np.zeros(hidden.size, dtype=np.bool_)
    target[mask.target[0][mask.target_valid[0]].numpy()] = True
    planes = target.reshape(grid.shape)
    if not np.array_equal(planes, hidden):
        layers = (("visible", ~hidden), ("target", planes & hidden), ("skipped", ~planes & hidden))
        keys = ("visible", "reconstructed", "hidden, not reconstructed")
        panels.append(token_maps(layers, 2 * ACROSS, title="What the decoder reconstructs", keys=keys))
    return tuple(panels)
