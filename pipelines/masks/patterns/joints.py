"""Masks of skeleton sequences: random joints of each frame plus whole frames, or whole limbs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from maskstream.pipelines.masks.core import Draw, Mask, Ratio, Scheme, Shot, TokenGrid, as_schedule
from maskstream.pipelines.masks.patterns.frames import draw_orders
from maskstream.shards.arrays import Bools
from maskstream.shards.limits import NaturalInt

from .random import draw_random_tokens

SharedBy = Literal["view", "sample", "batch"]
Per = Literal["frame", "clip"]

H36M_LIMBS = ((1, 2, 3), (4, 5, 6), (11, 12, 13), (14, 15, 16))
"""Right leg, left leg, left arm and right arm among Human3.6M's 17 joints."""
H36M_LIMB_PAIRS = (
    (1, 2, 3, 4, 5, 6),
    (11, 12, 13, 14, 15, 16),
    (1, 2, 3, 14, 15, 16),
    (4, 5, 6, 11, 12, 13),
)
"""Both legs, both arms, and the leg and arm of each side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Joints(Mask):
    """Hide floor(frames * T) whole frames and `joints` joints of every frame, drawn independently.

    With the defaults on 243 frames of 16 joints, 145 frames are hidden, and 5 joints in each of the others: 1 - 98/243
    * 11/16 = 72.3 % of all tokens. Every sample has the same count. The grid's axes are (frame, joint). Source: MPM
    (Zhang et al. 2023), which applies it to 2-D and 3-D skeletons (see `Joint`).

    Attributes:
        frames: Fraction of hidden frames, or a ratio schedule.
        joints: Number of hidden joints per frame.
        per: Draw the joints for each "frame", or once per "clip".
        scope: Unit that shares one mask: a "view", all views of a "sample", or a "batch" over all ranks, as published.
    """

    frames: Ratio = 0.6
    joints: NaturalInt = 5
    per: Per = "frame"
    scope: SharedBy = "view"

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        frames, joints = grid.need("frame", "joint", by="Joints")
        if self.joints > joints:
            raise ValueError(f"Joints hides {self.joints} joints per frame, got a grid of {joints} joints")
        rng = draw.generator(self.scope, f"joints {draw.part}")
        hidden = np.zeros((frames, joints), dtype=np.bool_)
        rows = 1 if self.per == "clip" else frames
        chosen = draw_orders(rows, joints, rng)[:, : self.joints]
        hidden[np.arange(frames)[:, None], chosen] = True
        hidden[draw_random_tokens(frames, as_schedule(self.frames).visible(frames, draw, "floor_masked"), rng)] = True
        return hidden.reshape(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limbs(Mask):
    """Hide one limb, or a few random joints, in all frames; all choices are equally likely.

    By default 3 of 17 joints are hidden: one of 4 limbs, or 3 random joints. The grid's axes are (frame, joint).
    Source: MPM (Zhang et al. 2023), completion of 3-D skeletons; for 2-D, use limbs=H36M_LIMB_PAIRS and joints=6.

    Attributes:
        limbs: Groups of joint numbers, one per limb.
        joints: Number of random joints; 0 always hides a limb.
    """

    limbs: tuple[tuple[NaturalInt, ...], ...] = H36M_LIMBS
    joints: NaturalInt = 3

    def validate(self) -> None:
        if self.joints < 0 or (not self.limbs and not self.joints):
            raise ValueError(f"at least one limb or random joint is required, got {self.limbs=} and {self.joints=}")

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        frames, joints = grid.need("frame", "joint", by="Limbs")
        most = max((joint + 1 for limb in self.limbs for joint in limb), default=0)
        if joints < max(most, self.joints):
            raise ValueError(f"Limbs needs a grid of {max(most, self.joints)} joints or more, got {joints}")
        choice = int(draw.rng.integers(len(self.limbs) + (self.joints > 0)))
        row = np.zeros(joints, dtype=np.bool_)
        if choice < len(self.limbs):
            row[list(self.limbs[choice])] = True
        else:
            row = draw_random_tokens(joints, joints - self.joints, draw.rng)
        return np.tile(row, frames)


SCHEMES = (
    Scheme(
        name="mpm",
        paper="MPM",
        section="pre-training",
        mask=Joints(frames=0.6, joints=5),
        grid=TokenGrid(axes=("frame", "joint"), shape=(243, 16), patch=(1, 1)),
        visible=1078,
        title="Joints and frames",
        note="Hides whole frames, and five joints of each other frame: 72.3 %. The loss covers all joints.",
    ),
    Scheme(
        name="mpm-limbs",
        paper="MPM",
        section="completion",
        mask=Limbs(limbs=H36M_LIMBS, joints=3),
        grid=TokenGrid(axes=("frame", "joint"), shape=(243, 17), patch=(1, 1)),
        visible=3402,
        title="Limbs",
        note="Hides one of four limbs, or three random joints, in all frames.",
        shots=(Shot(caption="a draw"), Shot(caption="another", view=1)),
    ),
)
