"""Batches of images with texts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.masks.text.replace import TextMaskBatch
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.text.batch import TextBatch, build_text_batch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.stream.batch import Batch, Movable

SPECIAL, PADDING = -1, -2
"""Role of special tokens and of padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRows(Movable):
    """B rows of L tokens with a sample's concatenated texts, [CLS] question [SEP] answer [SEP], padded at the end.

    Attributes:
        tokens: int32 (B, L): token ids.
        words: int32 (B, L): number of each token's word within its row, ascending; -1 for special tokens and padding.
        roles: int8 (B, L): number of each token's role in `ROLES` (maskstream.shards.members.text); -1 for special
            tokens, -2 for padding.
    """

    tokens: Tensor
    words: Tensor
    roles: Tensor

    @property
    def valid(self) -> Tensor:
        """Tokens that are not padding: bool (B, L), a key padding mask for attention (True = attend)."""
        return self.roles != PADDING


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextBatch(Batch):
    """A batch of B images, uint8 (B, H, W, 3), each with a row of L tokens; see `Batch` for shared fields.

    Attributes:
        image: uint8 (B, H, W, 3): RGB pixels.
        image_mask: Masks on the (h, w) token grid, or None.
        text: Texts of the roles in the loader's `text`.
        text_mask: Masks on the (token,) grid of length L, or None.
        box: float32 (B, 4): box of the object that the row's phrase refers to, x0, y0, x1, y1 as fractions of the
            image; NaN without one.
        segment: bool (B, H, W): pixels of that object, all False if unknown; None unless the loader has segments.
        target: Texts of the roles in the loader's `target`, for the model to generate; None if there are none.
        pair: Texts for image-text matching; None unless the loader has pairs.
        match: bool (B,): whether `pair` belongs to the image. A text of another sample that equals the image's own text
            is a match. None unless the loader has pairs.
    """

    image: Tensor
    image_mask: MaskBatch | None
    text: TextRows
    text_mask: TextMaskBatch | None
    box: Tensor
    segment: Tensor | None = None
    target: TextRows | None = None
    pair: TextRows | None = None
    match: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """Ids that an encoder reads, int64 (B, L), with the replacements of `masks.Replace` if the mask has them."""
        replaced = None if self.text_mask is None else self.text_mask.tokens
        return self.text.tokens.long() if replaced is None else replaced

    @property
    def pictures(self) -> ImageBatch:
        """Image part of the batch."""
        return ImageBatch(image=self.image, mask=self.image_mask, label=self.label, key=self.key)

    @property
    def texts(self) -> TextBatch:
        """Text part of the batch, in host memory."""
        rows = self.text.to("cpu")
        documents = torch.where(rows.valid, 0, -1).int()
        return build_text_batch(
            tokens=rows.tokens.numpy(),
            documents=documents.numpy(),
            words=rows.words.numpy(),
            mask=None if self.text_mask is None else self.text_mask.to("cpu"),
            key=self.key,
            label=self.label.cpu().numpy(),
        )

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Convert the images to float (B, 3, H, W), scaled to [0, 1] and normalised by `mean` and
        `std` (ImageNet's).
        """
        return self.pictures.pixel_values(mean, std, dtype)
