"""Schemes for audio, drawn on recorded speech."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pages.figures.card import Card, Figure, join_picture_row
from maskstream.pages.figures.pictures import Bool, UInt8, coloured, draw_masked_picture, resize
from maskstream.pages.figures.pictures import picture as shown
from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.audio.spectrogram import compute_spectrogram_grid
from maskstream.shards.media.fbank import Fbank
from maskstream.train.papers.ca_dense_unet.model import ComplexRatio

from .scheme import CardText, Drawn, GalleryScene, GallerySection, Media, Paint

FRAMES, BINS, PATCH = 1024, 128, 16
COMPLEX_RATIO = CardText(
    title="Ideal complex ratio",
    source="Channel-Attention Dense U-Net",
    note="This is a target, not a token mask: the mixture's spectrum times this ratio is the clean spectrum.",
    call="complex_ratio.ComplexRatio()",
)


def draw_scenes_by_axes(speech: npt.NDArray[np.float32]) -> dict[tuple[str, ...], GalleryScene]:
    """Return the speech in both orders of its tokens."""
    grid = compute_spectrogram_grid(FRAMES, BINS, (PATCH, PATCH))
    turned = replace(grid, axes=grid.axes[::-1], shape=grid.shape[::-1])
    paint = make_painter(draw_bands(speech))
    return {one.axes: GalleryScene(grid=one, paint=paint) for one in (grid, turned)}


def draw_bands(speech: npt.NDArray[np.float32]) -> UInt8:
    """Return the padded mel bands of the speech: uint8 (128, 1024, 3), low frequencies at the bottom."""
    bands = Fbank()(torch.from_numpy(speech - speech.mean())).numpy()[:FRAMES]
    low, high = np.percentile(bands, (5, 99.5))
    padded = np.full((FRAMES, BINS), low)
    padded[: len(bands)] = bands
    return picture(padded.T, float(low), float(high))


def upright(hidden: Bool, grid: TokenGrid) -> Bool:
    """Turn tokens from the order of `grid` into the orientation of the image: (freq, time), low frequencies at the
    bottom.

    Args:
        hidden: Flags of tokens.
        grid: Grid of the tokens.
    """
    return hidden[::-1] if grid.axes[0] == "freq" else hidden.T[::-1]


def make_painter(image: UInt8) -> Paint:
    """Return a function that paints masks on the spectrogram (128, 1024, 3), one below the other."""
    tall, low = resize(image[None], 160, 768)[0], resize(image[None], 96, 768)[0]

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        items = [] if len(drawn) > 1 else [shown(tall, "the spectrogram")]
        for shot, mask in drawn:
            tokens = mask.masked[0].numpy().reshape(grid.shape)
            caption = shot.caption and f"{shot.caption}: {int((~tokens).sum())} visible"
            size = tall if len(drawn) == 1 else low
            items.append(draw_masked_picture(size, upright(tokens, grid), "masked spectrogram", caption))
        return (join_picture_row(*items, across=1),)

    return paint


def mixed(media: Media, seed: int) -> list[Card]:
    """Draw the mixture of speech and crowd, the mask and the result, up to 4 kHz.

    Args:
        media: The sample media.
        seed: Not used.
    """
    pictures = draw_mixed(np.asarray(media.speech), np.asarray(media.crowd))
    items = (shown(one, name, name) for name, one in pictures.items())
    return [COMPLEX_RATIO.card([join_picture_row(*items, across=2)])]


def draw_mixed(speech: npt.NDArray[np.float32], crowd: npt.NDArray[np.float32]) -> dict[str, UInt8]:
    """Return the images of `mixed` by description, uint8 (150, 300, 3) each.

    Args:
        speech: Mono speech (n,).
        crowd: Mono noise (n,).
    """
    n = 3 * RATE_HZ
    clean, noise = speech[:n], crowd[:n]
    noise = noise * np.sqrt(clean.var() / noise.var())
    ratio = ComplexRatio()
    s, y = (spectrum(x) for x in (clean, clean + noise))
    mask = ratio.target(y, s)
    s_db, y_db, enhanced = (20 * np.log10(x.abs().numpy() + 1e-5) for x in (s, y, ratio.apply(mask, y)))
    size = ratio.invert_bounds(mask).abs().numpy()
    pictures = (
        ("speech and crowd noise, equally loud", picture(y_db, -50, 35)),
        ("size of the mask, 0 to 1.5", picture(size, 0.0, 1.5)),
        ("mask times mixture", picture(enhanced, -50, 35)),
        ("clean speech", picture(s_db, -50, 35)),
    )
    return {name: resize(p[len(p) // 2 :][None], 150, 300)[0] for name, p in pictures}


RATE_HZ = 16_000
WINDOW, HOP = 1024, 256

Floats = npt.NDArray[np.floating[Any]]


def spectrum(sound: npt.NDArray[np.float32]) -> Tensor:
    """Return the complex spectrum (F, T) of mono audio (n,), in Hann windows of 1024 samples every 256."""
    return torch.stft(torch.from_numpy(sound), WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)


def picture(values: Floats, low: float, high: float) -> UInt8:
    """Draw values (F, T) as colours (F, T, 3), low frequencies at the bottom.

    Args:
        values: The values.
        low: Value of the darkest colour.
        high: Value of the brightest colour.
    """
    return coloured(values[::-1], low, high)


KIND = GallerySection(
    title="Sound",
    words="8.7 s of speech, padded to 1024 frames of 10 ms in 128 mel bands: 64 x 8 tokens of 16 x 16. Time runs to "
    "the right, frequency upwards.",
    missing="audio clip",
    needs=("speech", "crowd"),
    axes=(("time", "freq"), ("freq", "time")),
    scenes=lambda media, seed: lambda scheme: draw_scenes_by_axes(np.asarray(media.speech))[scheme.grid.axes],
    more=mixed,
)
