"""Schemes for images, drawn on the last frame of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from maskstream.pages.figures.card import Card, Figure, join_picture_row
from maskstream.pages.figures.pictures import UInt8, draw_flow_picture, draw_masked_picture, picture, resize
from maskstream.pipelines.flow import dis_flow
from maskstream.pipelines.flow.picture import choose_flow_scale
from maskstream.pipelines.masks import Cues, Draw, Scheme, TokenGrid
from maskstream.train.papers.spiking_mst.model import Spikes

from .scheme import CardText, Drawn, GalleryScene, GallerySection, Media, Paint

SPIKES = CardText(
    title="Spikes",
    source="Masked Spiking Transformer, random spike masking",
    note=(
        "This is not a token mask. Single elements of activations are dropped, the same ones each time a sample is "
        "used. Here the elements are pixels."
    ),
    call=(
        "This is not a token mask. Single elements of activations are dropped, the same ones each time a sample "
        "is used. In this example, the elements are pixels."
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenes:
    """The last frame uint8 (384, 384, 3), a box in it, and an earlier frame with the flow to it, uint8 (2, S, S, 3)."""

    frame: UInt8
    box: tuple[float, float, float, float]
    stack: UInt8

    @classmethod
    def of_clip(cls, clip: UInt8, box: tuple[float, float, float, float]) -> Scenes:
        """Make scenes from a clip (T, S, S, 3).

        Args:
            clip: The clip.
            box: Box of an object in the last frame, as fractions.
        """
        return cls(frame=resize(clip[-1:], 384, 384)[0], box=box, stack=stack(resize(clip, 224, 224)))

    def views(self, scheme: Scheme) -> tuple[UInt8, ...]:
        """Return the images that a scheme masks: its views, or its stack."""
        if "modality" in scheme.grid.axes:
            return tuple(self.stack)
        if "box" in scheme.mask.needs:
            x0, y0, x1, y1 = (round(384 * share) for share in self.box)
            return (np.asarray(cv2.rectangle(self.frame.copy(), (x0, y0), (x1, y1), (255, 160, 60), 2), np.uint8),)
        return (self.frame, self.frame[20:210, 180:370]) if scheme.scene == "crops" else (self.frame,)

    def of(self, scheme: Scheme) -> GalleryScene:
        """Return the scene of a scheme, on its own grid."""
        views = self.views(scheme)
        paint = stack_painter(views) if "modality" in scheme.grid.axes else make_painter(*views)
        cues = (Cues(box=np.array(self.box)),) if "box" in scheme.mask.needs else (Cues(),)
        return GalleryScene(grid=scheme.grid, paint=paint, cues=cues)


def make_painter(*views: UInt8) -> Paint:
    """Return a function that paints the mask of view v on views[v % len(views)], next to the image if there is one
    view.
    """

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        small = [resize(view[None], 224, 224)[0] for view in views]
        items = [] if len(drawn) > 1 else [picture(small[0], "the picture")]
        for shot, mask in drawn:
            hidden = mask.masked[0].numpy().reshape(grid.shape)
            token = None if mask.mask_token is None else mask.mask_token[0].numpy().reshape(grid.shape)
            items.append(
                draw_masked_picture(small[shot.view % len(small)], hidden, "masked picture", shot.caption, token)
            )
        return (join_picture_row(*items),)

    return paint


def stack(clip: UInt8) -> UInt8:
    """Stack a frame and the flow that led to it, uint8 (2, 224, 224, 3), as two modalities."""
    flow = dis_flow(clip[-5:-3])
    scale = choose_flow_scale(flow.vectors, flow.valid)
    return np.stack([clip[-4], draw_flow_picture(flow.vectors[0], flow.valid[0], scale, (224, 224))])


def stack_painter(pictures: Sequence[UInt8]) -> Paint:
    """Return a function that paints the mask of each image of a stack."""

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        planes, names = drawn[0][1].masked[0].numpy().reshape(grid.shape), ("RGB", "second modality")
        return (join_picture_row(*map(draw_masked_picture, pictures, planes, names, names)),)

    return paint


def dropped(frame: UInt8, seed: int) -> tuple[UInt8, UInt8]:
    """Return an image of 56 x 56 pixels, and the image after `Spikes` drops elements.

    Args:
        frame: The original image.
        seed: Seed of the dropped elements.
    """
    spikes = Spikes(ratio=0.75)
    seeds = spikes.seeds([Draw(rng=np.random.default_rng(seed))])
    small = torch.from_numpy(resize(frame[None], 56, 56)[0])
    return small.numpy(), (small * spikes.keep(seeds, (56, 56))[0][:, :, None]).numpy()


def draw_spiked(frame: UInt8, seed: int) -> tuple[Figure, ...]:
    """Draw a small image before and after `Spikes` drops elements.

    Args:
        frame: The original image.
        seed: Seed of the dropped elements.
    """
    whole, shown = (small.repeat(4, axis=0).repeat(4, axis=1) for small in dropped(frame, seed))
    items = (
        picture(whole, "all elements", "all elements", lossless=True),
        picture(shown, "after dropping", "three quarters dropped", lossless=True),
    )
    return (join_picture_row(*items),)


def _draw_scenes(media: Media) -> Scenes:
    return Scenes.of_clip(np.asarray(media.video), media.box)


def _draw_more(media: Media, seed: int) -> list[Card]:
    return [SPIKES.card(draw_spiked(_draw_scenes(media).frame, seed))]


KIND = GallerySection(
    title="Images",
    words="The last frame of the clip, in the patches of each paper. Patches that enter as the mask token are hatched. "
    "The clip has no depth: the second image of a stack is the optical flow.",
    missing="image",
    needs=("video",),
    axes=(("h", "w"), ("modality", "h", "w")),
    scenes=lambda media, seed: _draw_scenes(media).of,
    more=_draw_more,
)
