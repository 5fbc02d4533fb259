"""Schemes for samples of two parts, drawn on an image and a text."""

import numpy as np

from maskstream.pages.figures.card import Card, join_picture_row
from maskstream.pages.figures.pictures import Bool, draw_masked_picture, resize
from maskstream.pipelines.masks import Cues, Draw, Joint, Padded, Random, WholeWords
from maskstream.pipelines.masks.core.scheme import format_call, square
from maskstream.pipelines.stream.rng import Place

from .scheme import CardText, GallerySection, Media
from .text import LENGTH, Pieces, cut_pieces, words

PAIR = Joint(parts={"image": Random(ratio=0.75), "text": Padded(mask=WholeWords(ratio=0.15))})
ENTRY = CardText(
    title="Image and text",
    source="M3AE",
    note="The mask hides three quarters of the image, and 15 % of the text in whole words.",
    call="masks.Joint(parts={" + ", ".join(f'"{k}": {format_call(m)}' for k, m in PAIR.parts.items()) + "})",
)


def pair(media: Media, seed: int) -> list[Card]:
    """Draw both parts of one sample, masked.

    Args:
        media: The sample media.
        seed: Seed of the masks.
    """
    frame, pieces = resize(np.asarray(media.video)[-1:], 288, 288)[0], cut_pieces(str(media.text), LENGTH)
    image, text = draw_masks(pieces, seed)
    title = f"{int((~image).sum())} of {image.size} patches visible, {int(text.sum())} pieces hidden"
    return [
        ENTRY.card(
            [join_picture_row(draw_masked_picture(frame, image, "picture"), across=2, title=title), words(pieces, text)]
        )
    ]


def draw_masks(pieces: Pieces, seed: int) -> tuple[Bool, Bool]:
    """Return the hidden patches of the image (18, 18) and the hidden pieces of the text (N,).

    Args:
        pieces: Pieces of the text.
        seed: Seed of the masks.
    """
    grid, cues = square(18), {"image": Cues(), "text": pieces.cues}
    draws = {part: [Draw.of(seed, 0, "gallery", 0, Place(), cues[part], part=part)] for part in PAIR.parts}
    masks = PAIR.draw({"image": grid, "text": pieces.grid}, draws)
    image, text = (masks[part].masked[0].numpy() for part in ("image", "text"))
    return image.reshape(grid.shape), text


KIND = GallerySection(
    title="Image and text",
    words="An image in 18 x 18 patches and a text, as one sample: each part has a separate grid and mask.",
    missing="image or no text",
    needs=("video", "text"),
    more=pair,
)
