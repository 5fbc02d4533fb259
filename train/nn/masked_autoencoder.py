"""The masked autoencoder: tokenise, gather the visible tokens, encode, decode, compare with the targets.

The model is the same for every kind of token: a `TokenKind` module splits data into tokens and defines the inputs and
targets. All shapes are static and all selections are gathers by index, so it compiles to one graph.

Shapes: B samples, N tokens, V of them visible, M of them predicted, D the encoder's width, E the decoder's width.

The architecture is VideoMAE's (Tong et al., 2022, section 3.4 and appendix): pre-norm blocks, fixed 1-D sinusoid
positions over the flattened tokens, no class token, a bias for query and value but none for key; the decoder reads the
visible tokens followed by mask tokens, without putting them back in order, and only the mask tokens are predicted.
VideoMAE V2 (Wang et al., 2023) is the same model with fewer mask tokens and a weight for each. MAE (He et al., 2022)
and MAE-ST (Feichtenhofer et al., 2022) are this model with a class token, a bias between encoder and decoder and other
positions: attention does not depend on the order of tokens, and a key bias does not change the softmax.

The configs at the end are for video (VideoMAE, MGMAE, VideoMAE V2, MAE-ST) and for images (MAE).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.limits import PositiveInt
from maskstream.train.core.model import Grids, Losses, ModelConfig, TokenFeatures, squared

from .encoder_decoder import TokenDecoder, VisibleEncoder
from .grid import LearntPositions, Windows, gather_tokens
from .layouts import find_layout
from .media_tokens import ImagePositions, ImageTokens, Positions, Targets, TokenKind, VideoTargets, VideoTokens
from .transformer import BlockSizes, init_linear


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig(ModelConfig[BatchT]):
    """The sizes of the encoder and the decoder.

    Attributes:
        width: Channels of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_width: Channels of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of all layer norms except the decoder's last. 1e-6 is the authors' value; transformers uses 1e-12.
        decoder_eps: Epsilon of the decoder's last layer norm; transformers uses 1e-5.
        decoder_window: Size of the decoder's attention windows in tokens of time and frequency (grid.py); None for
            global attention.
        class_token: Whether a learned token precedes the visible tokens in encoder and decoder.
        learnt: Whether positions are learned, separately for the first axis of the grid and the others, instead of
            fixed.
        bridge_bias: Whether the linear layer from the encoder's width to the decoder's has a bias.
        own_class: Whether the decoder has a learned class token instead of reading the encoder's, as in MAE-ST.
    """

    width: PositiveInt = 384
    depth: PositiveInt = 12
    heads: PositiveInt = 6
    decoder_width: PositiveInt = 192
    decoder_depth: PositiveInt = 4
    decoder_heads: PositiveInt = 3
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    decoder_eps: float = 1e-6
    decoder_window: tuple[int, int] | None = None
    class_token: bool = False
    learnt: bool = False
    bridge_bias: bool = False
    own_class: bool = False

    def validate(self) -> None:
        for part in ("", "decoder_"):
            self.need_heads(f"{part}width", f"{part}heads", of=2)
        if self.own_class and not self.class_token:
            raise ValueError("own_class=True needs class_token=True, got class_token=False")
        if self.decoder_window is not None and self.class_token:
            raise ValueError(
                f"a class token cannot be combined with windows, got decoder_window={self.decoder_window} and "
                "class_token=True; leave one out"
            )

    @abstractmethod
    def tokens(self, grids: Grids) -> TokenKind[BatchT]:
        """Return the `TokenKind` module for the data's grid."""


class MediaEncoder(TokenFeatures[BatchT]):
    """A model whose tokens are a `TokenKind`."""

    tokens: TokenKind[BatchT]

    def token_inputs(self, batch: BatchT) -> Tensor:
        """Return all tokens of a batch as the encoder reads them, float32 (B, N, n_inputs)."""
        return self.tokens.inputs(self.tokens.split(self.tokens.media(batch)))


class MaskedAutoencoder(MediaEncoder[BatchT], config=AutoencoderConfig):
    """A masked autoencoder over any `TokenKind` module."""

    whole_graph = True

    def __init__(self, config: AutoencoderConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.tokens = tokens = config.tokens(grids)
        self.encoder = VisibleEncoder(
            [tokens.n_inputs],
            self._compute_positions(c.width),
            BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps),
            class_token=c.class_token,
        )
        self.decoder = TokenDecoder(
            c.width,
            [tokens.n_targets],
            self._compute_positions(c.decoder_width),
            BlockSizes(c.decoder_depth, c.decoder_heads, c.mlp_ratio, c.eps),
            norm_eps=c.decoder_eps,
            windows=None if c.decoder_window is None else Windows(tokens.grid, c.decoder_window),
            class_token=c.class_token,
            own_class=c.own_class,
            bias=c.bridge_bias,
        )
        self.decoder.init_weights()
        init_linear(self)

    def _compute_positions(self, width: int) -> list[Tensor] | LearntPositions:
        if self.config.learnt:
            return LearntPositions(self.tokens.grid, width)
        return [self.tokens.positions(width)]

    def loss(self, batch: BatchT) -> Losses:
        """Return the mean squared error over target tokens, weighted by the mask."""
        data, mask = self.tokens.of(batch)
        tokens = self.tokens.split(data)
        with torch.no_grad():
            expected = self.tokens.targets(gather_tokens(tokens, mask.target))
        predicted = self._predict(tokens, mask.visible, mask.target)
        return Losses(parts={"reconstruction": squared(predicted, expected, mask.weight)})

    def reconstructed(self, batch: BatchT) -> BatchT:
        """Return the batch with target tokens replaced by predictions, scaled by the true mean and standard
        deviation.
        """
        return self.tokens.completed(batch, self.predict(*self._seen(batch)))

    def _seen(self, batch: BatchT) -> tuple[Tensor, Tensor, Tensor]:
        data, mask = self.tokens.of(batch)
        return data, mask.visible, mask.target

    def predict(self, data: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        """Predict tokens from visible ones.

        Args:
            data: Clips, images or spectrograms.
            visible: Indices of the visible tokens (B, V).
            target: Indices of the tokens to predict (B, M).

        Returns:
            Predictions (B, M, n_targets).
        """
        return self._predict(self.tokens.split(data), visible, target)

    def encode(self, data: Tensor, visible: Tensor) -> Tensor:
        """Return the encoder's output (B, V, D) for the tokens `visible` (B, V) of `data`, without the class token.

        Args:
            data: Media of a batch.
            visible: Indices of the tokens to encode, int64.
        """
        encoded = self._encode(self.tokens.split(data), visible)
        return encoded[:, 1:] if self.config.class_token else encoded

    def rename_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return foreign weights of VideoMAE and MAE, as saved by transformers or their authors (layouts.py), under
        this model's names; see `Model`.

        Raises:
            ValueError: Their fixed positions differ from this model's.
        """
        found = find_layout(weights)
        if found is None:
            return weights
        layout, plain = found
        for name, own in zip(layout.positions, (self.encoder.positions(), self.decoder.positions()), strict=False):
            theirs = plain[name][0, 1:].to(own) if name in plain else own
            if theirs.shape != own.shape or not torch.allclose(theirs, own, atol=1e-4):
                raise ValueError(
                    f"{name!r} of {layout.what} has different positions from the model, or a different number of "
                    "them; use the size and patch of those weights, and model.positions=columns"
                )
        return layout.to_ours(plain)

    def token_features(self, batch: BatchT) -> Tensor:
        """Return the encoder's output (B, N, D) for all tokens of a batch, none of them hidden."""
        data = self.tokens.media(batch)
        index = torch.arange(self.tokens.n_tokens, device=data.device).expand(data.shape[0], -1)
        return self.encode(data, index)

    def _encode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        return cast(Tensor, self.encoder(self.tokens.inputs(gather_tokens(tokens, visible)), visible))

    def _predict(self, tokens: Tensor, visible: Tensor, target: Tensor) -> Tensor:
        made: list[Tensor] = self.decoder([self._encode(tokens, visible)], [visible], [target])
        return made[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoAutoencoderConfig(AutoencoderConfig[VideoBatch]):
    """The sizes of a masked autoencoder of video cubes.

    Attributes:
        target: Targets of the decoder: "normalised" cubes as in VideoMAE, "pixels", or a "frame" as in MAE-ST.
        positions: Fixed positions, unless they are `learnt`: on a "line" through all tokens as in VideoMAE, or on the
            axes of a "grid" (see media_tokens.py).
    """

    target: VideoTargets = "normalised"
    positions: Positions = "line"

    def tokens(self, grids: Grids) -> TokenKind[VideoBatch]:
        """Return the cubes of video on the grid "video"."""
        return VideoTokens(grids["video"], self.target, self.positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAutoencoderConfig(AutoencoderConfig[ImageBatch]):
    """The sizes of a masked autoencoder of image patches.

    Attributes:
        target: Targets of the decoder: "normalised" patches or "pixels" (see media_tokens.py).
        positions: Fixed positions; see ImagePositions. The weights published by MAE's authors use "columns".
    """

    target: Targets = "normalised"
    positions: ImagePositions = "rows"

    def tokens(self, grids: Grids) -> TokenKind[ImageBatch]:
        """Return the patches on the grid "image"."""
        return ImageTokens(grids["image"], self.target, self.positions)
