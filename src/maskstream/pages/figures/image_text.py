"""Figures of images with texts: the image and its text, what the encoder sees of both, and what a model predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch

from .card import Card, Facts, Figure, Picture, PictureGrid
from .image import ImageFigures
from .pictures import darken, data_uri
from .text import TextFigures
from .words import plural


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextFigures:
    """Of images and rows of texts, by the figures of each."""

    image: ImageFigures
    text: TextFigures

    def about(self, batch: ImageTextBatch) -> tuple[str, dict[str, str]]:
        """A description of the images, of the rows, and of their tokens."""
        n, (h, w), (ph, pw) = len(batch), self.image.grid.shape, self.image.grid.patch
        real = int(batch.text.valid.sum())
        lede = (
            f"{plural(n, 'image')} with text, as the training loop receives {'it' if n == 1 else 'them'}: cropped, "
            "resized, cut into tokens, and each part masked on its own. A token of an image is a patch of "
            f"{ph} x {pw} pixels; one of a text is a word or a part of one."
        )
        return lede, {
            "size": f"{h * ph} x {w * pw} pixels",
            "tokens": f"of an image {h} x {w}, of a row of text {batch.text.tokens.shape[1]:,}",
            "padding": f"{1 - real / max(batch.text.tokens.numel(), 1):.1%} of the tokens of texts",
        }

    def sample(self, batch: ImageTextBatch, i: int) -> Card:
        """The image and its row of text, with what the encoder sees of them, and the box of a phrase."""
        seen, read = self.image.sample(batch.pictures, i), self.text.sample(batch.texts, i)
        parts = (("Image", seen, batch.image_mask), ("Text", read, batch.text_mask))
        facts = [
            Facts(title=title, items=one.facts[0].items) for title, one, mask in parts if mask is not None and one.facts
        ]
        missing = [f"The loader was built without a mask of the {title.lower()}." for title, _, m in parts if m is None]
        return Card(
            key=batch.key[i],
            words=f"{seen.words}; {read.words.partition(',')[0]}",
            label=seen.label,
            facts=tuple(facts),
            figures=(*self._boxed(batch, i, seen.figures), *read.figures),
            missing=tuple(missing),
            icon=seen.icon,
        )

    def compared(self, batch: ImageTextBatch, made: ImageTextBatch, i: int) -> Card:
        """Image and text as they were, and with the model's predictions of what was hidden; of an image of which
        nothing was hidden, what its phrase refers to and what the model found.
        """
        if batch.image_mask is None and not made.box[i].isnan().any():
            return self._referred(batch, made, i)
        image = self.image.compared(batch.pictures, made.pictures, i)
        text = self.text.compared(batch.texts, made.texts, i)
        return replace(image, figures=(*image.figures, *text.figures))

    def _referred(self, batch: ImageTextBatch, made: ImageTextBatch, i: int) -> Card:
        """What a phrase refers to and what a model found: boxes, and segments where there are some."""
        items = [self._box(batch, i, "the phrase's box")] if not batch.box[i].isnan().any() else []
        items.append(self._box(made, i, "the box that is found", image=batch))
        if batch.segment is not None and batch.segment[i].any():
            items.append(self._segment(batch, i, "its segment"))
        if made.segment is not None:
            items.append(self._segment(made, i, "the segment that is found", image=batch))
        phrase = self.text.sample(replace(batch, text_mask=None).texts, i).figures
        pictures = PictureGrid(items=tuple(items), across=2 if len(items) > 3 else len(items))
        return Card(key=batch.key[i], words="", figures=(*phrase, pictures))

    def _boxed(self, batch: ImageTextBatch, i: int, figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
        """The figures, with one of what the phrase refers to if it has a box."""
        if batch.box[i].isnan().any():
            return figures
        items, words = [self._box(batch, i)], "The box it refers to."
        if batch.segment is not None and batch.segment[i].any():
            items, words = [*items, self._segment(batch, i)], "The box and the pixels it refers to."
        return (*figures, PictureGrid(items=tuple(items), across=len(items), title="The phrase", words=words))

    def _box(self, batch: ImageTextBatch, i: int, caption: str = "", image: ImageTextBatch | None = None) -> Picture:
        """The box of a row over its image, or over that of `image`."""
        height, width = batch.image.shape[1:3]
        size = torch.tensor((width, height, width, height))
        x0, y0, x1, y1 = (batch.box[i].cpu() * size).round(decimals=1).tolist()
        return Picture(
            uri=data_uri((image or batch).image[i].cpu().numpy()),
            alt=f"{caption or 'box'} in {batch.key[i]}",
            outline=f"M{x0:g} {y0:g}H{x1:g}V{y1:g}H{x0:g}z",
            columns=width,
            rows=height,
            caption=caption,
            marked=True,
        )

    def _segment(
        self, batch: ImageTextBatch, i: int, caption: str = "", image: ImageTextBatch | None = None
    ) -> Picture:
        """The image of a row, or that of `image`, dark but for the segment."""
        if batch.segment is None:
            raise ValueError("a batch without segments has none to show; give the loader segments=True")
        pixels, shown = (image or batch).image[i].cpu().numpy(), batch.segment[i].cpu().numpy()
        return Picture(
            uri=data_uri(darken(pixels[None], ~shown[None])[0]),
            alt=f"{caption or 'segment'} in {batch.key[i]}",
            caption=caption,
        )
