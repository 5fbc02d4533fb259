"""Figures of images: the image, its visible tokens, and the model's prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.shards.arrays import UInt8s

from .card import Card, join_picture_row
from .figures import MaskRow, received, sample_card
from .pictures import check_grid, compared, draw_masked_picture, draw_row, picture, sized

SIDE_PX, COMPARED_PX = 320, 224


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFigures:
    """Figures of images; `grid` is the grid of tokens, with the axes (h, w)."""

    grid: TokenGrid
    label_names: Sequence[str] = ()

    def about(self, batch: ImageBatch) -> tuple[str, dict[str, str]]:
        """Describe the images and their tokens."""
        (h, w), (ph, pw) = self.grid.shape, self.grid.patch
        lede = (
            f"{received(len(batch), 'image')}: cropped, resized and masked. The model sees only the visible tokens of "
            f"an image and reconstructs hidden ones. A token is a patch of {ph} x {pw} pixels; an image has {h} x {w} "
            f"tokens, {h * w:,} in all."
        )
        return lede, {"size": f"{h * ph} x {w * pw} pixels"}

    def sample(self, batch: ImageBatch, i: int) -> Card:
        """Draw the image, and its visible tokens.

        Args:
            batch: The batch.
            i: Row.
        """
        key, pixels = batch.key[i], self._resize_picture(batch, i, SIDE_PX)[0]
        mask = MaskRow.of(batch.mask, i) if batch.mask else None
        whole = picture(pixels, f"image {key}")
        figures = [join_picture_row(whole, title="The image", words="As the model receives it.")]
        if mask is not None:
            words = f"{mask.visible:,} of {mask.masked.size:,} patches are visible; grey ones are hidden."
            seen = draw_masked_picture(pixels, mask.masked.reshape(self.grid.shape), f"visible tokens of {key}")
            figures.append(join_picture_row(seen, title="Visible tokens", words=words))
        size = f"{batch.image.shape[2]} x {batch.image.shape[1]} pixels"
        return sample_card(batch, i, size, figures, {"": mask}, names=self.label_names, icon=whole.uri)

    def compared(self, batch: ImageBatch, made: ImageBatch, i: int) -> Card:
        """Draw the original image, its visible part if it is masked, and the model's reconstruction.

        Args:
            batch: The original batch.
            made: The reconstructed batch.
            i: Row.
        """
        original, completed = (self._resize_picture(one, i, COMPARED_PX) for one in (batch, made))
        shown = {"original": original, "reconstruction": completed}
        if batch.mask is not None:
            mask = MaskRow.of(batch.mask, i)
            hidden, targeted = (one.reshape(1, *self.grid.shape) for one in (mask.masked, mask.targeted))
            shown = compared(original, completed, hidden, targeted)
        return Card(
            key=batch.key[i],
            words="",
            figures=(draw_row({name: one[0] for name, one in shown.items()}, batch.key[i]),),
        )

    def _resize_picture(self, batch: ImageBatch, i: int, side_px: int) -> UInt8s:
        """Return image `i`, uint8 (1, h, w, 3), resized to about `side_px` pixels a side."""
        check_grid(self.grid, batch.image.shape[1:3], "the images")
        return sized(batch.image[i : i + 1].cpu().numpy(), self.grid, side_px)
