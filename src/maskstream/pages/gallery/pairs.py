"""Schemes for samples of two parts, drawn on a picture and a text."""

from __future__ import annotations

from collections.abc import Sequence

from ...pipelines.masks import Cues, Draw, Joint, Padded, Random, TokenGrid, WholeWords
from ...pipelines.stream.place import Place
from ..figures.pictures import UInt8, resize
from .image import plane
from .media import Media
from .panels import Panel, Pictures, masked_picture
from .scheme import Drawn, Paint, Scene, Scheme, Section, cards
from .text import LENGTH, words
from .words import Pieces, pieces_of

TITLE = "Image and text"
LEDE = "A picture in 18 x 18 patches and a text, as one sample: each part has a grid and a mask of its own."

SCHEMES = (
    Scheme(
        name="Image and text",
        source="M3AE",
        says="Three quarters of the picture are hidden, and 15 % of the text in whole words.",
        call=(
            'masks.Joint(parts={"image": masks.Random(ratio=0.75), '
            '"text": masks.Padded(mask=masks.WholeWords(ratio=0.15))})'
        ),
        make=lambda: Joint(parts={"image": Random(ratio=0.75), "text": Padded(mask=WholeWords(ratio=0.15))}),
        on="pair",
        command="m3ae-image",
        shots=(),
    ),
)


def section(media: Media, seed: int) -> Section:
    """The cards, or why there are none."""
    if media.video is None or media.text is None:
        return Section(title=TITLE, lede=LEDE, cards=(), missing="a picture and a text")
    return Section(title=TITLE, lede=LEDE, cards=cards(SCHEMES, scenes(media.video, media.text, seed), seed))


def scenes(video: UInt8, text: str, seed: int) -> dict[str, Scene]:
    """The last frame and the text."""
    frame, pieces = resize(video[-1:], 288, 288)[0], pieces_of(text, LENGTH)
    return {"pair": Scene(grid=plane(18), paint=pair_painter(frame, pieces, seed))}


def pair_painter(frame: UInt8, pieces: Pieces, seed: int) -> Paint:
    """Draws and paints both parts of one sample."""

    def paint(_: Sequence[Drawn], grid: TokenGrid) -> tuple[Panel, ...]:
        joint = SCHEMES[0].mask()
        cues = {"image": Cues(), "text": pieces.cues}
        draws = {part: [Draw.of(seed, 0, "gallery", 0, Place(), cues[part], part=part)] for part in joint.parts}
        masks = joint.draw({"image": grid, "text": pieces.grid}, draws)
        image, text = (masks[part].masked[0].numpy() for part in ("image", "text"))
        title = f"{int((~image).sum())} of {image.size} patches visible, {int(text.sum())} pieces hidden"
        picture = masked_picture(frame, image.reshape(grid.shape), alt="picture")
        return Pictures(items=(picture,), across=2, title=title), words(pieces, text)

    return paint
