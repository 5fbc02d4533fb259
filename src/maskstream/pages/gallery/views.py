"""Schemes for video, images and sound: masks drawn over a clip, its last frame, and the spectrogram of speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from maskstream.pages.figures.card import Card, Drawing, Figure, join_picture_row
from maskstream.pages.figures.figures import MaskRow
from maskstream.pages.figures.pictures import (
    coloured,
    draw_flow_picture,
    draw_masked_picture,
    draw_row,
    draw_runs,
    picture,
    resize,
)
from maskstream.pipelines.flow import dis_flow
from maskstream.pipelines.flow.picture import choose_flow_scale
from maskstream.pipelines.masks import Cues, Draw, MaskBatch, Scheme, TokenGrid
from maskstream.pipelines.modalities.audio.spectrogram import compute_spectrogram_grid
from maskstream.shards.arrays import Bools, Float32s, UInt8s
from maskstream.shards.media.fbank import Fbank
from maskstream.train.papers.ca_dense_unet.model import ComplexRatio
from maskstream.train.papers.spiking_mst.model import Spikes

from .scheme import CardText, DrawnMask, GalleryScene, GallerySection, Media, Paint

# Video

SIDE_PX, SHOWN_PX, ACROSS = 224, 112, 4


def make_clip_scene(video: UInt8s) -> GalleryScene:
    """Return the clip (T, S, S, 3) in cubes, with its flow."""
    clip = resize(video, SIDE_PX, SIDE_PX)

    def paint(drawn: Sequence[DrawnMask]) -> tuple[Figure, ...]:
        return tuple(panel for one in drawn for panel in paint_clip(clip, one.mask, one.shot.caption))

    cues = Cues(frames=clip, flow=dis_flow(clip).vectors, cuts=np.zeros(len(clip) - 1, dtype=np.bool_))
    return GalleryScene(grid=TokenGrid.video(len(clip), SIDE_PX, SIDE_PX), cues=(cues,), paint=paint)


def paint_clip(clip: UInt8s, mask: MaskBatch, title: str) -> tuple[Figure, ...]:
    """Draw the first frame of each time step, masked, and a map of the targets if they differ from the hidden tokens.

    Args:
        clip: The clip.
        mask: The mask.
        title: Title of the figure.
    """
    hidden, frames = DrawnMask(mask=mask).hidden, resize(clip[:: mask.grid.patch[0]], SHOWN_PX, SHOWN_PX)
    items = (draw_masked_picture(frames[step], plane, alt=f"time step {step + 1}") for step, plane in enumerate(hidden))
    row = join_picture_row(*items, across=ACROSS, title=title)
    planes = MaskRow.of(mask, 0).targeted.reshape(hidden.shape)
    if np.array_equal(planes, hidden):
        return (row,)
    layers = (("visible", ~hidden), ("target", planes & hidden), ("skipped", ~planes & hidden))
    keys = ("visible", "reconstructed", "hidden, not reconstructed")
    return row, join_token_maps(layers, 2 * ACROSS, title="Targets of the decoder", keys=keys)


def sheet(planes: Bools, across: int) -> Bools:
    """Arrange planes (n, h, w) in rows, with one empty line between them.

    Args:
        planes: The planes.
        across: Number of planes in a row.
    """
    n, h, w = np.add(planes.shape, (-len(planes) % across, 1, 1))
    cells = np.pad(planes, ((0, n - len(planes)), (0, 1), (0, 1))).reshape(-1, across, h, w)
    return np.asarray(cells.swapaxes(1, 2).reshape(-1, across * w)[:-1, :-1])


def join_token_maps(layers: Sequence[tuple[str, Bools]], across: int, *, title: str, keys: Sequence[str]) -> Drawing:
    """Join maps of tokens into one drawing.

    Args:
        layers: Class and flags (n, h, w) of each layer.
        across: Number of maps in a row.
        title: Title of the drawing.
        keys: Names of the layers.
    """
    sheets = {name: sheet(planes, across) for name, planes in layers}
    height, width = next(iter(sheets.values())).shape
    return Drawing(
        paths=tuple((name, draw_runs(flags)) for name, flags in sheets.items()),
        width=width,
        height=height,
        alt=title,
        title=title,
        crisp=True,
        keys=tuple(zip(sheets, keys, strict=True)),
    )


VIDEO = GallerySection(
    title="Video",
    words="A clip of 16 frames at 224 pixels in cubes of 2 x 16 x 16: eight time steps of 14 x 14 tokens. The page "
    "shows the first frame of each step; bright tokens are visible to the encoder.",
    missing="clip",
    needs=("video",),
    axes=(("t", "h", "w"),),
    scenes=lambda media, seed: make_clip_scene(np.asarray(media.video)).on_all,
)


# Images

SPIKES = CardText(
    title="Spikes",
    source="Masked Spiking Transformer, random spike masking",
    note=(
        "This is not a token mask. Single elements of activations are dropped, the same ones each time a sample is "
        "used. In this example, the elements are pixels."
    ),
    call="spikes.Spikes(ratio=0.75)",
)


def make_image_scenes(clip: UInt8s, box: tuple[float, float, float, float]) -> Callable[[Scheme], GalleryScene]:
    """Return a function that builds the scene of a scheme, on its own grid, from the last frame of a clip (T, S, S, 3):
    its views or, for two modalities, an earlier frame with the flow to it.

    Args:
        clip: The clip.
        box: Box of an object in the last frame, as fractions.
    """
    frame, small = resize(clip[-1:], 384, 384)[0], resize(clip, 224, 224)
    flow = dis_flow(small[-5:-3])
    scale = choose_flow_scale(flow.vectors, flow.valid)
    stack = [small[-4], draw_flow_picture(flow.vectors[0], flow.valid[0], scale, (224, 224))]

    def build(scheme: Scheme) -> GalleryScene:
        views, cues = [frame], Cues()
        if "modality" in scheme.grid.axes:
            views = stack
        elif "box" in scheme.mask.needs:
            corners, cues = [round(384 * share) for share in box], Cues(box=np.array(box))
            views = [np.asarray(cv2.rectangle(frame.copy(), corners[:2], corners[2:], (255, 160, 60), 2), np.uint8)]
        elif scheme.scene == "crops":
            views = [frame, frame[20:210, 180:370]]
        paint = paint_stack if views is stack else paint_views
        return GalleryScene(grid=scheme.grid, paint=paint(*views), cues=(cues,), views=tuple(views))

    return build


def paint_views(*views: UInt8s) -> Paint:
    """Return a function that paints the mask of view v on views[v % len(views)], next to the image if there is one
    view.
    """
    small = [resize(view[None], 224, 224)[0] for view in views]

    def paint(drawn: Sequence[DrawnMask]) -> tuple[Figure, ...]:
        items = [] if len(drawn) > 1 else [picture(small[0], "the picture")]
        for one in drawn:
            token = None if one.mask.mask_token is None else one.mask.mask_token[0].numpy().reshape(one.hidden.shape)
            view = small[one.shot.view % len(small)]
            items.append(draw_masked_picture(view, one.hidden, "masked picture", one.shot.caption, token))
        return (join_picture_row(*items),)

    return paint


def paint_stack(*pictures: UInt8s) -> Paint:
    """Return a function that paints the mask of each image of a stack."""
    names = ("RGB", "second modality")
    return lambda drawn: (join_picture_row(*map(draw_masked_picture, pictures, drawn[0].hidden, names, names)),)


def drop_elements(frame: UInt8s, seed: int) -> tuple[UInt8s, UInt8s]:
    """Return an image of 56 x 56 pixels, and the image after `Spikes` drops elements.

    Args:
        frame: The original image.
        seed: Seed of the dropped elements.
    """
    spikes, small = Spikes(ratio=0.75), torch.from_numpy(resize(frame[None], 56, 56)[0])
    kept = spikes.keep(spikes.seeds([Draw(rng=np.random.default_rng(seed))]), (56, 56))[0]
    return small.numpy(), (small * kept[:, :, None]).numpy()


def _draw_spikes(media: Media, seed: int) -> list[Card]:
    """Draw a small image before and after `Spikes` drops elements."""
    frame = resize(np.asarray(media.video)[-1:], 384, 384)[0]
    whole, left = (small.repeat(4, axis=0).repeat(4, axis=1) for small in drop_elements(frame, seed))
    shown = {"all elements": whole, "three quarters dropped": left}
    return [SPIKES.card((draw_row(shown, "the picture", lossless=True),))]


IMAGES = GallerySection(
    title="Images",
    words="The last frame of the clip, in the patches of each paper. Patches that enter as the mask token are hatched. "
    "The clip has no depth: the second image of a stack is the optical flow.",
    missing="image",
    needs=("video",),
    axes=(("h", "w"), ("modality", "h", "w")),
    scenes=lambda media, seed: make_image_scenes(np.asarray(media.video), media.box),
    more=_draw_spikes,
)


# Audio


FRAMES, BINS, PATCH = 1024, 128, 16
RATE_HZ, WINDOW, HOP = 16_000, 1024, 256
COMPLEX_RATIO = CardText(
    title="Ideal complex ratio",
    source="Channel-Attention Dense U-Net",
    note="This is a target, not a token mask: the mixture's spectrum times this ratio is the clean spectrum.",
    call="complex_ratio.ComplexRatio()",
)


def make_sound_scenes(speech: Float32s) -> Callable[[Scheme], GalleryScene]:
    """Return a function that builds the scene of a scheme from the padded mel bands of speech (128, 1024, 3), in the
    scheme's order of tokens.
    """
    bands = Fbank()(torch.from_numpy(speech - speech.mean())).numpy()[:FRAMES]
    low, high = np.percentile(bands, (5, 99.5)).tolist()
    padded = np.full((FRAMES, BINS), low)
    padded[: len(bands)] = bands
    image = coloured(padded.T[::-1], low, high)
    tall, short = (resize(image[None], height, 768)[0] for height in (160, 96))

    def paint(drawn: Sequence[DrawnMask]) -> tuple[Figure, ...]:
        size, items = (short, []) if len(drawn) > 1 else (tall, [picture(tall, "the spectrogram")])
        for one in drawn:
            caption = one.shot.caption and f"{one.shot.caption}: {int((~one.hidden).sum())} visible"
            items.append(draw_masked_picture(size, one.hidden, "masked spectrogram", caption))
        return (join_picture_row(*items, across=1),)

    grid = compute_spectrogram_grid(FRAMES, BINS, (PATCH, PATCH))
    turned = replace(grid, axes=grid.axes[::-1], shape=grid.shape[::-1])
    grids = {one.axes: GalleryScene(grid=one, paint=paint, views=(image,)) for one in (grid, turned)}
    return lambda scheme: grids[scheme.grid.axes]


def draw_mixed(speech: Float32s, crowd: Float32s) -> dict[str, UInt8s]:
    """Draw the mixture of mono speech and noise (n,), the mask and the result, up to 4 kHz: images by description,
    uint8 (150, 300, 3) each.

    Args:
        speech: The speech.
        crowd: The noise.
    """
    clean, noise = speech[: 3 * RATE_HZ], crowd[: 3 * RATE_HZ]
    noise = noise * np.sqrt(clean.var() / noise.var())
    ratio = ComplexRatio()
    s, y = (spectrum(x) for x in (clean, clean + noise))
    mask = ratio.target(y, s)
    s_db, y_db, enhanced = (20 * np.log10(x.abs().numpy() + 1e-5) for x in (s, y, ratio.apply(mask, y)))
    pictures = {
        "speech and crowd noise, equally loud": (y_db, -50, 35),
        "size of the mask, 0 to 1.5": (ratio.invert_bounds(mask).abs().numpy(), 0.0, 1.5),
        "mask times mixture": (enhanced, -50, 35),
        "clean speech": (s_db, -50, 35),
    }
    images = {name: coloured(values[::-1], low, high) for name, (values, low, high) in pictures.items()}
    return {name: resize(image[len(image) // 2 :][None], 150, 300)[0] for name, image in images.items()}


def spectrum(sound: Float32s) -> Tensor:
    """Return the complex spectrum (F, T) of mono audio (n,), in Hann windows of 1024 samples every 256."""
    return torch.stft(torch.from_numpy(sound), WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)


def _draw_ratio(media: Media, seed: int) -> list[Card]:
    drawn = draw_mixed(np.asarray(media.speech), np.asarray(media.crowd))
    return [COMPLEX_RATIO.card([draw_row(drawn, "the sound", across=2)])]


SOUND = GallerySection(
    title="Sound",
    words="8.7 s of speech, padded to 1024 frames of 10 ms in 128 mel bands: 64 x 8 tokens of 16 x 16. Time runs to "
    "the right, frequency upwards.",
    missing="audio clip",
    needs=("speech", "crowd"),
    axes=(("time", "freq"), ("freq", "time")),
    scenes=lambda media, seed: make_sound_scenes(np.asarray(media.speech)),
    more=_draw_ratio,
)
