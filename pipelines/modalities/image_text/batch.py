"""A batch of images with texts."""

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
"""The role of a special token, and of padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRows(Movable):
    """B rows of L tokens: the texts of a sample one behind the other, [CLS] question [SEP] answer [SEP], padded at the
    end.

    tokens: int32 (B, L), ids. words: int32 (B, L), the number of a token's word within its row, ascending; -1 for
    special tokens and padding. roles: int8 (B, L), the number of a token's role in `ROLES`
    (maskstream.shards.members.text), -1 for special tokens, -2 for padding.
    """

    tokens: Tensor
    words: Tensor
    roles: Tensor

    @property
    def valid(self) -> Tensor:
        """Which tokens are no padding: bool (B, L), a key padding mask for attention (True = attend)."""
        return self.roles != PADDING


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextBatch(Batch):
    """A batch of B images, each with a row of L tokens.

    image: uint8 (B, H, W, 3), RGB. image_mask: MaskBatch over the (h, w) token grid, or None. text: the texts that the
    loader's `text` names. text_mask: over the token grid (token,) of L, or None. box: float32 (B, 4), what the phrase
    in a row refers to, x0, y0, x1, y1 as shares of the image; NaN without one. segment: bool (B, H, W), the pixels that
    it refers to, none where they are not known; None unless the loader has segments.

    target: the texts that the loader's `target` names, which a model is to write; None if it names none. pair: a text
    that a model is to judge, and match: bool (B,), whether it is the image's own; both None unless the loader has
    pairs. A text of another sample that equals the own one is a match. The rest is as in `Batch`.
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
        """The ids that an encoder reads, int64 (B, L): with those of `masks.Replace` where the mask has them."""
        replaced = None if self.text_mask is None else self.text_mask.tokens
        return self.text.tokens.long() if replaced is None else replaced

    @property
    def pictures(self) -> ImageBatch:
        """The images alone."""
        return ImageBatch(image=self.image, mask=self.image_mask, label=self.label, key=self.key)

    @property
    def texts(self) -> TextBatch:
        """The texts alone, in host memory."""
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
        """The images as float (B, 3, H, W), scaled to [0, 1] and normalised by `mean` and `std` (ImageNet's)."""
        return self.pictures.pixel_values(mean, std, dtype)
