"""Figures of pictures: the picture, what the encoder sees of it, and what a model predicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image.batch import ImageBatch

from .card import Card, Facts, Picture, PictureGrid, label_words
from .figures import MaskRow, mask_facts, outline_path
from .pictures import Bool, UInt8, cell_size, darken, data_uri, resize, token_pixels
from .words import plural

SIDE_PX, COMPARED_PX = 320, 224


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFigures:
    """Of pictures whose tokens are those of `grid`, on the axes (h, w)."""

    grid: TokenGrid
    label_names: Sequence[str] = ()

    def about(self, batch: ImageBatch) -> tuple[str, dict[str, str]]:
        """A description of the pictures and of their tokens."""
        (h, w), (ph, pw), n = self.grid.shape, self.grid.patch, len(batch)
        lede = (
            f"{plural(n, 'picture')} as the training loop receives {'it' if n == 1 else 'them'}: cropped, resized and "
            "masked. The model is shown only the visible tokens of a picture and has to reconstruct hidden ones. A "
            f"token is a patch of {ph} x {pw} pixels; a picture has {h} x {w} tokens, {h * w:,} in all."
        )
        return lede, {"size": f"{h * ph} x {w * pw} pixels"}

    def sample(self, batch: ImageBatch, i: int) -> Card:
        """The picture, and what the encoder sees of it."""
        views = self._views(batch, i, SIDE_PX)
        mask = MaskRow.of(batch.mask, i) if batch.mask else None
        key = batch.key[i]
        whole = Picture(uri=data_uri(views[0]), alt=f"picture of {key}")
        figures = [_one("The picture", "As the model gets it.", whole)]
        if mask is not None:
            rows, columns = self.grid.shape
            seen = Picture(
                uri=data_uri(views[1]),
                alt=f"what the encoder sees of {key}",
                outline=outline_path(~mask.masked.reshape(rows, columns)),
                columns=columns,
                rows=rows,
            )
            words = f"Bright patches, {mask.counts.visible:,} of {mask.counts.tokens:,}; grey ones are hidden from it."
            figures.append(_one("What the encoder sees", words, seen))
        return Card(
            key=key,
            words=f"{batch.image.shape[2]} x {batch.image.shape[1]} pixels",
            label=label_words(int(batch.label[i]), self.label_names),
            facts=(Facts(items=mask_facts(mask.counts)),) if mask else (),
            figures=tuple(figures),
            missing=() if mask else ("The loader was built without a mask.",),
            icon=whole.uri,
        )

    def compared(self, batch: ImageBatch, made: ImageBatch, i: int) -> Card:
        """The picture as it was, as the encoder saw it if it is masked, and as the model makes it."""
        original, seen = self._views(batch, i, COMPARED_PX)
        completed, _ = self._views(made, i, COMPARED_PX)
        items: tuple[tuple[str, UInt8], ...] = (("original", original), ("reconstruction", completed))
        if batch.mask is not None:
            row = MaskRow.of(batch.mask, i)
            shown = np.where(self._pixels(row.masked & row.targeted, COMPARED_PX)[..., None], completed, seen)
            items = (items[0], ("the encoder saw", seen), ("reconstruction", shown.astype(np.uint8)))
        return Card(
            key=batch.key[i],
            words="",
            figures=(
                PictureGrid(
                    items=tuple(
                        Picture(uri=data_uri(pixels), alt=f"{word} of {batch.key[i]}", caption=word)
                        for word, pixels in items
                    ),
                    across=len(items),
                ),
            ),
        )

    def _views(self, batch: ImageBatch, i: int, side_px: int) -> tuple[UInt8, UInt8]:
        """Picture `i`, and what the encoder sees of it, uint8 (h, w, 3) of nearly `side_px` pixels a side."""
        if batch.image.shape[1:3] != (wanted := tuple(np.multiply(self.grid.shape, self.grid.patch).tolist())):
            raise ValueError(
                f"pictures of {tuple(batch.image.shape[1:3])} pixels do not lie on a grid of {self.grid.shape} tokens, "
                f"which covers {wanted}; use the grid that the loader draws its masks on"
            )
        cell = cell_size(self._one_frame, side_px)
        rows, columns = self.grid.shape
        pixels = resize(batch.image[i].cpu().numpy()[None], rows * cell[0], columns * cell[1])
        if batch.mask is None:
            return pixels[0], pixels[0]
        hidden = self._pixels(MaskRow.of(batch.mask, i).masked, side_px)
        return pixels[0], darken(pixels, hidden[None])[0]

    def _pixels(self, tokens: Bool, side_px: int) -> Bool:
        """Token flags (N,) as pixels of a picture of nearly `side_px` pixels a side."""
        pixels: Bool = token_pixels(tokens, self._one_frame, cell_size(self._one_frame, side_px))[0]
        return pixels

    @property
    def _one_frame(self) -> TokenGrid:
        """The grid of a clip of one frame, for what draws clips."""
        return TokenGrid(axes=("t", "h", "w"), shape=(1, *self.grid.shape), patch=(1, *self.grid.patch))


def _one(title: str, words: str, picture: Picture) -> PictureGrid:
    """A figure of one picture."""
    return PictureGrid(items=(picture,), across=1, title=title, words=words)
