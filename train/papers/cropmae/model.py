"""A siamese masked autoencoder: hidden patches of one view are predicted from its visible ones and from another view.

CropMAE (Eymael et al., 2024) uses two crops of an image, SiamMAE (Gupta et al., 2023) two frames of a video. The same
encoder encodes both views, the first one without a mask. The decoder's blocks have cross-attention of the second view's
tokens to the first view's, an MLP, and self-attention.

Shapes: B pairs, N tokens of a view, V of them visible in the second view, M predicted, D and E the widths of encoder
and decoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.dropout import ResidualBlock
from maskstream.train.core.model import Grids, Losses, ModelConfig, TokenFeatures, need_mask, squared
from maskstream.train.nn.encoder_decoder import VisibleEncoder
from maskstream.train.nn.grid import gather_tokens
from maskstream.train.nn.media_tokens import ImagePositions, ImageTokens
from maskstream.train.nn.transformer import MLP, Attention, BlockSizes, CrossAttention, NormAt, init_linear


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossConfig(ModelConfig[BatchT], ABC):
    """The sizes of the model, by default CropMAE's ViT-S/16.

    Attributes:
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        mlp_ratio: Hidden channels of the encoder's MLPs per channel.
        decoder_width: Channels of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        decoder_mlp_ratio: Hidden channels of the decoder's MLPs per channel.
        eps: Epsilon of all layer norms.
        norm: Location of the norms of the decoder's blocks; "pre" also normalises the tokens that a branch attends to.
        positions: Fixed positions; see ImagePositions.
        key_places: Whether the first view's tokens get the decoder's positions in cross-attention, in addition to the
            encoder's.
    """

    version: ClassVar[int] = 2  # 2: the decoder's blocks are in a different order

    width: PositiveInt = 384
    depth: PositiveInt = 12
    heads: PositiveInt = 6
    mlp_ratio: PositiveInt = 4
    decoder_width: PositiveInt = 256
    decoder_depth: PositiveInt = 4
    decoder_heads: PositiveInt = 8
    decoder_mlp_ratio: PositiveInt = 8
    eps: float = 1e-6
    norm: NormAt = "post"
    positions: ImagePositions = "columns"
    key_places: bool = False

    def validate(self) -> None:
        for part in ("", "decoder_"):
            self.need_heads(f"{part}width", f"{part}heads", of=4)


@dataclass(frozen=True, kw_only=True, slots=True)
class CropPairConfig(CrossConfig[ImageBatch]):
    """A model of two views of an image: CropMAE."""

    def check(self, data: DataConfig[ImageBatch]) -> None:
        """Raise ValueError unless the data have two views of a sample."""
        if isinstance(data, ImageData) and data.views != 2:
            raise ValueError(f"a two-crop model needs data.views=2, got {data.views}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FramePairConfig(CrossConfig[VideoBatch]):
    """A model of two frames of a video: SiamMAE."""

    def check(self, data: DataConfig[VideoBatch]) -> None:
        """Raise ValueError unless the data are clips of two frames, with tokens of one frame."""
        if isinstance(data, VideoData) and (data.clip.frames, data.tubelet) != (2, 1):
            raise ValueError(
                f"a two-frame model needs clip.frames=2 and data.tubelet=1, got {data.clip.frames}, {data.tubelet}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two views, uint8 (B, H, W, 3) each, and of the second the tokens `visible` (B, V), `target` (B, M) and the weight
    (B, M) of the targets.
    """

    first: Tensor
    second: Tensor
    visible: Tensor
    target: Tensor
    weight: Tensor


class CrossBlock(ResidualBlock):
    """A block of the decoder (B, L, E): attention to the first view's tokens (B, S, E), an MLP, self-attention."""

    def __init__(self, c: CrossConfig[BatchT]) -> None:
        super().__init__()
        width, heads = c.decoder_width, c.decoder_heads
        self.post = c.norm == "post"
        self.cross = CrossAttention(width, heads, None if self.post else c.eps)
        self.mlp = MLP(width, c.decoder_mlp_ratio)
        self.attention = Attention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=c.eps) for _ in range(3))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        parts: tuple[Callable[[Tensor], Tensor], ...] = (lambda x: self.cross(x, seen), self.mlp, self.attention)
        for part, norm in zip(parts, self.norms, strict=True):
            x = norm(self.joined(x, part(x))) if self.post else self.joined(x, part(norm(x)))
        return x


class CrossAutoencoder(TokenFeatures[BatchT]):
    """The model, over the patches of a view."""

    whole_graph = True

    def __init__(self, config: CrossConfig[BatchT], grids: Grids, grid: TokenGrid) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.tokens = ImageTokens(grid, places=c.positions)
        self.encoder = VisibleEncoder(
            [self.tokens.n_inputs],
            [self.tokens.positions(c.width)],
            BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps),
            class_token=True,
        )
        self.bridge = nn.Linear(c.width, c.decoder_width)
        self.mask_token = nn.Parameter(torch.empty(c.decoder_width).normal_(std=0.02))
        self.register_buffer("place", self.tokens.positions(c.decoder_width), persistent=False)
        self.decoder = nn.ModuleList(CrossBlock(c) for _ in range(c.decoder_depth))
        self.norm = nn.LayerNorm(c.decoder_width, eps=c.eps)
        self.head = nn.Linear(c.decoder_width, self.tokens.n_targets)
        init_linear(self)

    place: Tensor

    encoder_parts: ClassVar[tuple[str, ...]] = ("tokens", "encoder")
    """Parts that compute the features."""

    @abstractmethod
    def views(self, batch: BatchT) -> Tensor:
        """Return all views of a batch, uint8 (B, V, H, W, 3)."""

    @abstractmethod
    def pair(self, batch: BatchT) -> Pair:
        """Return the two views of each pair of a batch; raise ValueError if it has no masks."""

    @abstractmethod
    def completed(self, batch: BatchT, second: Tensor) -> BatchT:
        """Return the batch with `second` uint8 (B, H, W, 3) instead of the second views.

        Args:
            batch: The batch.
            second: New second views.
        """

    def loss(self, batch: BatchT) -> Losses:
        """Return the mean squared error over the target patches of the second view."""
        pair = self.pair(batch)
        with torch.no_grad():
            expected = self.tokens.targets(gather_tokens(self.tokens.split(pair.second), pair.target))
        return Losses(parts={"reconstruction": squared(self.predict(pair), expected, pair.weight)})

    def reconstructed(self, batch: BatchT) -> BatchT:
        """Return the batch with the target patches of the second views replaced by the predictions."""
        pair = self.pair(batch)
        return self.completed(batch, self.tokens.paint(pair.second, pair.target, self.predict(pair)))

    def predict(self, pair: Pair) -> Tensor:
        """Return the predicted targets of the second view, (B, M, n_targets)."""
        every = torch.arange(self.tokens.n_tokens, device=pair.visible.device).expand(pair.first.shape[0], -1)
        seen = self.bridge(self._encoded(pair.first, every))
        if self.config.key_places:
            seen = torch.cat((seen[:, :1], seen[:, 1:] + self.place), dim=1)
        x = self.bridge(self._encoded(pair.second, pair.visible))
        known = torch.cat((x[:, :1], x[:, 1:] + self.place[pair.visible]), dim=1)
        x = torch.cat((known, self.mask_token + self.place[pair.target]), dim=1)
        for block in self.decoder:
            x = block(x, seen)
        return cast(Tensor, self.head(self.norm(x[:, -pair.target.shape[1] :])))

    def token_features(self, batch: BatchT) -> Tensor:
        """Return the encoder's output (B, V N, D) for all patches of all views."""
        views = self.views(batch)
        every = torch.arange(self.tokens.n_tokens, device=views.device).expand(views.shape[0] * views.shape[1], -1)
        return self.encode(views.flatten(0, 1), every).reshape(views.shape[0], -1, self.config.width)

    def token_inputs(self, batch: BatchT) -> Tensor:
        """Return all patches of all views as the encoder reads them, float32 (B, V N, n_inputs)."""
        views = self.views(batch)
        inputs = self.tokens.inputs(self.tokens.split(views.flatten(0, 1)))
        return inputs.reshape(views.shape[0], -1, self.tokens.n_inputs)

    def encode(self, view: Tensor, visible: Tensor) -> Tensor:
        """Return the encoder's output (B, V, D) for the tokens `visible` (B, V) of views uint8 (B, H, W, 3).

        Args:
            view: The views.
            visible: Indices of the tokens to encode, int64.
        """
        return self._encoded(view, visible)[:, 1:]

    def _encoded(self, view: Tensor, visible: Tensor) -> Tensor:
        inputs = self.tokens.inputs(gather_tokens(self.tokens.split(view), visible))
        return cast(Tensor, self.encoder(inputs, visible))


class CropPairModel(CrossAutoencoder[ImageBatch], config=CropPairConfig):
    """Two crops of an image. Only the mask of the second view is used."""

    def __init__(self, config: CropPairConfig, grids: Grids) -> None:
        super().__init__(config, grids, grids["image"])

    def views(self, batch: ImageBatch) -> Tensor:
        """Return each image of a batch as a separate sample, uint8 (B, 1, H, W, 3); see CrossAutoencoder."""
        return batch.image[:, None]

    def pair(self, batch: ImageBatch) -> Pair:
        """See CrossAutoencoder."""
        m = need_mask(batch.mask).rows(slice(1, None, 2))
        return Pair(
            first=batch.image[0::2], second=batch.image[1::2], visible=m.visible, target=m.target, weight=m.weight
        )

    def completed(self, batch: ImageBatch, second: Tensor) -> ImageBatch:
        """See CrossAutoencoder.

        Args:
            batch: The batch.
            second: New second views.
        """
        return replace(batch, image=torch.stack((batch.image[0::2], second), dim=1).flatten(0, 1))


class FramePairModel(CrossAutoencoder[VideoBatch], config=FramePairConfig):
    """Two frames of a video. Only the mask of the second frame is used; it must hide the same number of tokens in every
    clip.
    """

    def __init__(self, config: FramePairConfig, grids: Grids) -> None:
        shape, patch = grids["video"].shape, grids["video"].patch
        if (shape[0], patch[0]) != (2, 1):
            raise ValueError(f"a two-frame model needs tokens of 1 frame at 2 times, got {grids['video']}")
        super().__init__(config, grids, TokenGrid(axes=("h", "w"), shape=shape[1:], patch=patch[1:]))

    def views(self, batch: VideoBatch) -> Tensor:
        """See CrossAutoencoder; the two frames, uint8 (B, 2, H, W, 3)."""
        return batch.video

    def pair(self, batch: VideoBatch) -> Pair:
        """See CrossAutoencoder."""
        first, second = batch.video.unbind(1)
        n, m = self.tokens.n_tokens, need_mask(batch.mask)
        half = m.visible.shape[1] // 2, m.target.shape[1] // 2
        return Pair(
            first=first,
            second=second,
            visible=m.visible[:, half[0] :] - n,
            target=m.target[:, half[1] :] - n,
            weight=m.weight[:, half[1] :],
        )

    def completed(self, batch: VideoBatch, second: Tensor) -> VideoBatch:
        """See CrossAutoencoder.

        Args:
            batch: The batch.
            second: New second views.
        """
        return replace(batch, video=torch.stack((batch.video[:, 0], second), dim=1))
