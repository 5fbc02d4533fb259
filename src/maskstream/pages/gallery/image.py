"""Schemes for images, drawn on the last frame of the clip."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from ...pipelines.flow import dis_flow
from ...pipelines.masks import Cues, Draw, Spikes, TokenGrid
from ..figures.flow_colours import flow_picture, flow_scale
from ..figures.pictures import UInt8, data_uri, resize
from .media import Media
from .panels import Panel, Picture, Pictures, masked_picture
from .scheme import Drawn, Paint, Scene, Scheme, Section, Shot, cards

TITLE = "Images"
LEDE = "The last frame of the clip, in patches of 16 x 16 pixels unless it says otherwise."
PX = 16

SCHEMES = (
    Scheme(
        name="Random",
        source="MAE, sec. 3",
        says="A quarter of the patches stay visible, anywhere: the mask that all others are measured against.",
        call="masks.Random(ratio=0.75)",
        command="mae",
        on="picture",
    ),
    Scheme(
        name="Blocks",
        source="BEiT, sec. 2.3",
        says="Rectangles of random size, aspect and place until exactly 75 patches are hidden.",
        call="masks.Block(ratio=masks.UniformCount(low=75, high=75))",
        command="beit",
        on="picture",
    ),
    Scheme(
        name="Inside and outside a box",
        source="OneRef, referring-aware masking",
        says="Three quarters of the box that a phrase refers to are hidden, a third of the rest. 24 x 24 patches.",
        call="masks.Padded(mask=masks.Box(inside=0.75, outside=0.35, margin=1))",
        command="oneref",
        on="boxed",
    ),
    Scheme(
        name="Second view only",
        source="CropMAE",
        says="A crop, and a crop of that crop: the first is all visible, of the second two patches are.",
        call="masks.Padded(mask=masks.ByView(masks=(None, masks.Random(ratio=0.985))))",
        command="cropmae",
        on="crops",
        shots=(Shot(caption="view 1, the whole"), Shot(caption="view 2, a part of it", view=1)),
    ),
    Scheme(
        name="One mask for two models",
        source="DMAE",
        says="Teacher and student see the same patches.",
        call="masks.Shared(mask=masks.Random(ratio=0.75))",
        command="dmae",
        on="picture",
        shots=(Shot(caption="view 1, the teacher's"), Shot(caption="view 2, the student's", view=1)),
    ),
    Scheme(
        name="Complementary",
        source="pairs of views",
        says="What one view hides the other shows.",
        call="masks.Complementary(mask=masks.Random(ratio=0.5))",
        command="complementary",
        on="picture",
        shots=(Shot(caption="view 1"), Shot(caption="view 2", view=1)),
    ),
    Scheme(
        name="Drop and mask",
        source="MAGE, sec. 3.1",
        says=(
            "Half of the tokens leave the sequence, more of them become the mask token (hatched): a truncated normal, "
            "one number for the whole batch. 16 x 16 tokens of a tokenizer."
        ),
        call='masks.DropAndMask(ratio=masks.TruncatedNormal(scope="batch"), drop=0.5)',
        command="mage",
        on="codes",
        shots=(Shot(caption="a batch"), Shot(caption="another epoch's batch", epoch=1)),
    ),
    Scheme(
        name="Cosine of a uniform number",
        source="MaskGIT, sec. 3.3",
        says="The ratio of each sample is the cosine of a uniform number: mostly high, sometimes almost nothing.",
        call="masks.Padded(mask=masks.Random(ratio=masks.MaskGIT()))",
        command="maskgit",
        on="codes",
        shots=tuple(Shot(caption=f"draw {i + 1}", view=i) for i in range(3)),
    ),
    Scheme(
        name="Ratio that rises and holds",
        source="LMD, masking schedulers",
        says="From 15 to 75 % along a squared cosine in two thirds of the run. 7 x 7 tokens of a latent picture.",
        call="masks.Random(ratio=masks.SquaredCosine())",
        command="lmd",
        on="latent",
        shots=tuple(Shot(caption=f"at {round(100 * p)} % of the run", progress=p) for p in (0.0, 1 / 3, 1.0)),
    ),
    Scheme(
        name="Several ratios in a batch",
        source="AVSiam, multi-ratio masking",
        says="A batch is dealt in equal parts to five ratios, in a new order each time.",
        call='masks.Padded(mask=masks.Random(ratio=masks.MultiRatio(name="image")))',
        command="avsiam-image",
        on="picture",
        shots=tuple(Shot(caption=f"sample {i + 1}", row=i, rows=5) for i in range(5)),
    ),
    Scheme(
        name="One mask for a stack of pictures",
        source="RGB and depth",
        says="The same places in both. No depth camera took this: the second picture is the clip's optical flow.",
        call='masks.Tube(ratio=0.75, axis="modality")',
        command="rgb-depth",
        on="stack",
    ),
    Scheme(
        name="Spikes",
        source="Masked Spiking Transformer, random spike masking",
        says=(
            "No mask of tokens: single elements of activations are dropped, the same ones whenever a sample is shown. "
            "Here the elements are pixels."
        ),
        call="masks.Spikes(ratio=0.75)",
        make=Spikes,
        on="spikes",
        shots=(),
    ),
)


def section(media: Media, seed: int) -> Section:
    """The cards, or why there are none."""
    if media.video is None:
        return Section(title=TITLE, lede=LEDE, cards=(), missing="a picture")
    return Section(title=TITLE, lede=LEDE, cards=cards(SCHEMES, scenes(media.video, media.box, seed), seed))


def scenes(video: UInt8, box: tuple[float, float, float, float], seed: int) -> dict[str, Scene]:
    """The last frame on the grids of the papers."""
    frame = resize(video[-1:], 384, 384)[0]
    part = frame[20:210, 180:370]
    x0, y0, x1, y1 = (round(384 * share) for share in box)
    boxed: UInt8 = np.asarray(cv2.rectangle(frame.copy(), (x0, y0), (x1, y1), (255, 160, 60), 2), dtype=np.uint8)
    cues = (Cues(box=np.array(box)),)
    return {
        "picture": Scene(grid=plane(14), paint=painter(frame)),
        "boxed": Scene(grid=plane(24), paint=painter(boxed), cues=cues),
        "crops": Scene(grid=plane(14), paint=painter(frame, part)),
        "codes": Scene(grid=plane(16), paint=painter(frame)),
        "latent": Scene(grid=plane(7, 4), paint=painter(frame)),
        "stack": stack(resize(video, 224, 224)),
        "spikes": Scene(grid=plane(56, 4), paint=spike_painter(frame, seed)),
    }


def plane(side: int, patch: int = PX) -> TokenGrid:
    """side x side tokens."""
    return TokenGrid(axes=("h", "w"), shape=(side, side), patch=(patch, patch))


def painter(*views: UInt8) -> Paint:
    """Paints masks on the pictures of the views, counted around."""

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Panel, ...]:
        items = (
            [] if len(drawn) > 1 else [Picture(uri=data_uri(resize(views[0][None], 224, 224)[0]), alt="the picture")]
        )
        for shot, mask in drawn:
            hidden = mask.masked[0].numpy().reshape(grid.shape)
            picture = resize(views[shot.view % len(views)][None], 224, 224)[0]
            token = None if mask.mask_token is None else mask.mask_token[0].numpy().reshape(grid.shape)
            items.append(masked_picture(picture, hidden, token=token, alt="masked picture", caption=shot.caption))
        return (Pictures(items=tuple(items), across=len(items)),)

    return paint


def stack(clip: UInt8) -> Scene:
    """The last frame and the flow that led to it, as a stack of two modalities."""
    flow = dis_flow(clip[-5:-3])
    scale = flow_scale(flow.vectors, flow.valid)
    pictures = (clip[-4], flow_picture(flow.vectors[0], flow.valid[0], scale, (224, 224)))

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Panel, ...]:
        planes = drawn[0][1].masked[0].numpy().reshape(grid.shape)
        names = ("RGB", "second modality")
        items = tuple(masked_picture(p, h, alt=n, caption=n) for p, h, n in zip(pictures, planes, names, strict=True))
        return (Pictures(items=items, across=2),)

    return Scene(grid=TokenGrid(axes=("modality", "h", "w"), shape=(2, 14, 14), patch=(1, PX, PX)), paint=paint)


def spike_painter(frame: UInt8, seed: int) -> Paint:
    """Paints what `Spikes` leaves of a small picture."""

    def paint(_: Sequence[Drawn], grid: TokenGrid) -> tuple[Panel, ...]:
        spikes = Spikes(ratio=0.75)
        seeds = spikes.seeds([Draw(rng=np.random.default_rng(seed))])
        small = torch.from_numpy(resize(frame[None], *grid.shape)[0])
        kept = (small * spikes.keep(seeds, grid.shape)[0][:, :, None]).numpy()
        shown = kept.repeat(4, axis=0).repeat(4, axis=1)
        whole = small.numpy().repeat(4, axis=0).repeat(4, axis=1)
        items = (
            Picture(uri=data_uri(whole, lossless=True), alt="all elements", caption="all elements"),
            Picture(uri=data_uri(shown, lossless=True), alt="after dropping", caption="three quarters dropped"),
        )
        return (Pictures(items=items, across=2),)

    return paint
