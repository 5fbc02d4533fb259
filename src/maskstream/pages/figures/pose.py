"""Figures of poses: the camera's view, the same from the side, with their masks, and a model's predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.modalities.pose.batch import PoseBatch
from maskstream.pipelines.modalities.pose.data import PoseClip
from maskstream.shards.arrays import Bools
from maskstream.shards.media.h36m import bones

from .card import Card, Drawing
from .chart import Floats, draw_dots, lines
from .figures import MaskRow, received, sample_card
from .pictures import spread
from .words import plural

ACROSS = 6
TALL, MARGIN = 150.0, 8.0
_NARROWEST = 60.0


def skeletons(
    flat: Floats,
    *,
    hidden: Bools | None = None,
    made: Floats | None = None,
    title: str = "",
    alt: str = "skeletons",
) -> Drawing:
    """Draw poses in rows of 6, each with its pelvis (joint 0) in the middle, at one scale.

    Args:
        flat: Poses (T, J, 2), y downwards.
        hidden: Joints that are pale, with their bones, bool (T, J); all are visible by default.
        made: A model's poses (T, J, 2), in another colour over the true ones, which are pale.
        title: Title of the drawing.
        alt: Alternative text.
    """
    pairs = np.array(bones(flat.shape[1]))
    gone = np.zeros(flat.shape[:2], dtype=np.bool_) if hidden is None else hidden
    centred = flat - flat[:, :1]
    over = centred if made is None else made - made[:, :1]
    every = np.concatenate([centred, over])
    low, high = every.min(axis=(0, 1)), every.max(axis=(0, 1))
    scale = (TALL - 2 * MARGIN) / float(max(high[1] - low[1], 1e-6))
    half = float(max(-low[0], high[0])) * scale
    if half > TALL:
        scale, half = scale * TALL / half, TALL
    gap, frame = max(2 * half + MARGIN, _NARROWEST), np.arange(len(flat))
    corner = np.stack([gap * (frame % ACROSS + 0.5), TALL * (frame // ACROSS) + MARGIN - low[1] * scale], axis=1)
    placed, over = (one * scale + corner[:, None] for one in (centred, over))
    pale = np.asarray(gone[:, pairs].any(axis=2)) | (made is not None)
    paths = [
        (name, "".join(lines(pose, pairs[some]) for pose, some in zip(placed, chosen, strict=True)))
        for name, chosen in (("line-hidden", pale), ("line-visible", ~pale))
    ]
    keys = [("dot-visible", "visible joints"), ("dot-hidden", "hidden")]
    if made is None:
        paths += [("dot-hidden", draw_dots(placed[gone])), ("dot-visible", draw_dots(placed[~gone]))]
    else:
        paths += [("line-made", "".join(lines(pose, pairs) for pose in over))]
        keys = [("line-made", "the model's"), ("line-hidden", "true")]
    return Drawing(
        paths=tuple(paths),
        width=ACROSS * gap,
        height=TALL * -(-len(flat) // ACROSS),
        alt=alt,
        title=title,
        keys=tuple(keys if made is not None or hidden is not None else ()),
    )


CAMERA = "As the camera sees it"
SIDE = "From the camera's right"


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseFigures:
    """Figures of pose clips; `rate_hz` is the frame rate of stored sequences."""

    clip: PoseClip
    rate_hz: float
    label_names: Sequence[str] = ()

    def about(self, batch: PoseBatch) -> tuple[str, dict[str, str]]:
        """Describe the clips and their drawings."""
        step_s = self.clip.stride / self.rate_hz
        frames, joints = batch.pose_3d.shape[1:3]
        lede = (
            f"{received(len(batch), 'clip', ' of poses')}: the view of a random camera, and the pose in 3-D, each with "
            f"a separate mask. {ACROSS} of the frames are drawn. From the side, the camera is to the left."
        )
        return lede, {"clip": f"{frames} frames, {1000 * step_s:.0f} ms apart", "joints": str(joints)}

    def sample(self, batch: PoseBatch, i: int) -> Card:
        """Draw the camera's view and the side view of a clip, with hidden joints pale.

        Args:
            batch: The batch.
            i: Row.
        """
        figures = [
            skeletons(flat, hidden=hidden, title=title, alt=f"{title} of {batch.key[i]}")
            for title, flat, hidden in _read_views(batch, i)
        ]
        both = {"The picture": batch.mask_2d, "In 3-D": batch.mask_3d}
        masks = {part: MaskRow.of(mask, i) for part, mask in both.items() if mask is not None}
        words = f"the camera is {float(batch.root[i, :, 2].mean()):.1f} m away"
        return sample_card(batch, i, words, figures, masks or {"": None}, names=self.label_names, noun="joints")

    def compared(self, batch: PoseBatch, made: PoseBatch, i: int) -> Card:
        """Draw the visible part of a clip, and the model's poses over the true ones where they differ.

        Args:
            batch: The original batch.
            made: The predicted batch.
            i: Row.
        """
        figures: list[Drawing] = []
        for (title, flat, hidden), (_, own, _) in zip(_read_views(batch, i), _read_views(made, i), strict=True):
            alt = f"{title} of {batch.key[i]}"
            if hidden is not None:
                figures.append(skeletons(flat, hidden=hidden, title=f"{title}: seen", alt=f"{alt}, visible joints"))
            if np.array_equal(own, flat):
                figures.append(skeletons(flat, title=title, alt=alt))
            else:
                figures.append(skeletons(flat, made=own, title=f"{title}: made", alt=f"{alt}, made"))
        return Card(key=batch.key[i], words=plural(batch.pose_3d.shape[1], "frame"), figures=tuple(figures))


def _read_views(batch: PoseBatch, i: int) -> Iterator[tuple[str, Floats, Bools | None]]:
    """Yield title, poses (T, J, 2) on the page and hidden joints (T, J) of the camera's view and the side view, in the
    frames that are drawn.
    """
    at = spread(batch.pose_3d.shape[1], ACROSS)
    for title, poses, mask in (
        (CAMERA, batch.pose_2d[i], batch.mask_2d),
        (SIDE, batch.pose_3d[i][..., [2, 1]], batch.mask_3d),
    ):
        hidden = None if mask is None else mask.masked[i].numpy().reshape(poses.shape[:2])[at]
        yield title, poses[at].float().numpy(), hidden
