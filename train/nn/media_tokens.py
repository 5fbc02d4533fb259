"""Samples as tokens: inputs of an encoder and targets of a decoder.

All kinds of samples are cut in the same way, along the axes of their grid (`TokenKind`). Images follow MAE (He et
al., 2022, 3): pixels are normalised by ImageNet's mean and standard deviation, and a target is such a patch, unchanged
or normalised to mean 0 and variance 1 over all its values, with the colours together.
Spectrograms, which the loader has normalised, have the same targets.
"""

from dataclasses import replace
from math import prod
from typing import Any, ClassVar, Generic, Literal

import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch, TokenGrid
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, VideoBatch
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.model import need_mask

from .grid import (
    build_axis_sinusoids,
    build_grid_positions,
    build_interleaved_sinusoid,
    from_cells,
    gather_tokens,
    put_tokens,
    to_cells,
)
from .objectives import compute_joint_moments

Targets = Literal["normalised", "pixels"]
"""Targets of a token: pixels normalised by the token's mean and standard deviation, or pixels in the units of the
encoder's inputs, normalised by constants. Only the second can be drawn without the true values.
"""
VideoTargets = Literal["normalised", "pixels", "frame"]
"""The same, or "frame", as in MAE-ST: the first frame of a cube, normalised by its mean and deviation over all values,
colours together.
"""
Positions = Literal["line", "grid"]
"""Position of a token: on a line through all tokens, or on the axes of time, height and width."""


ImagePositions = Literal["rows", "columns", "grid"]
"""Position of a patch: the sinusoids of its row and of its column, with the named ones in the first half of the vector,
or waves that fit the grid (see `build_grid_positions`).
"""


def build_image_positions(grid: tuple[int, ...], width: int, places: ImagePositions) -> Tensor:
    """Return fixed positions float32 (N, width) of patches; raise ValueError if the width is not a multiple of 4.

    Args:
        grid: Shape of the grid (h, w).
        width: Number of channels.
        places: Kind of positions.
    """
    if places == "grid":
        return build_grid_positions(grid, width)
    rows_first = build_axis_sinusoids(grid, width)
    return rows_first if places == "rows" else rows_first.roll(width // 2, dims=1)


class TokenKind(nn.Module, Generic[BatchT]):
    """Cuts samples along all axes of a grid into tokens, in the order of the grid.

    The values of a token are in the order of its axes, then of its channels.

    A token is predicted relative to its mean and standard deviation. Subclasses set `medium`. It is a module, so its
    buffers follow the model to its device.

    Attributes:
        medium: Field of the batch with the samples.
        axes: Axes that the grid must have; empty for any.
        channels_first: Whether the values of a token are in the order of its channels first.

    Args:
        grid: Token grid.
        channels: Number of channels, the last axis of a sample; None if it has none.
    """

    medium: ClassVar[str]
    axes: ClassVar[tuple[str, ...]] = ()
    channels_first: ClassVar[bool] = False

    def __init__(self, grid: TokenGrid, channels: int | None = None) -> None:
        super().__init__()
        if self.axes:
            grid.need(*self.axes, by=f"a model of {self.medium}s")
        self.grid, self.patch, self.channels = grid.shape, grid.patch, channels or 1
        self.extent = tuple(n * step for n, step in zip(grid.shape, grid.patch, strict=True))
        self.shape = self.extent if channels is None else (*self.extent, channels)
        self.n_tokens, self.n_pixels = grid.size, prod(grid.patch)
        self.n_inputs = self.n_targets = self.n_pixels * self.channels

    def media(self, batch: BatchT) -> Tensor:
        """Return the samples of a batch; raise ValueError if it has none."""
        found = getattr(batch, self.medium)
        if not isinstance(found, Tensor):
            raise ValueError(f"the batch has no {self.medium}; take it from a loader of such samples")
        return found

    def of(self, batch: BatchT) -> tuple[Tensor, MaskBatch]:
        """Return the samples and the masks of a batch; raise ValueError if one is missing."""
        return self.media(batch), need_mask(getattr(batch, "mask", None))

    def completed(self, batch: BatchT, predicted: Tensor) -> BatchT:
        """Return the batch with its target tokens replaced by the predictions (B, M, n_targets).

        Args:
            batch: The batch.
            predicted: The predictions.
        """
        data, mask = self.of(batch)
        changed: dict[str, Any] = {self.medium: self.paint(data, mask.target, predicted)}
        return replace(batch, **changed)

    def grid_of(self, data: Tensor) -> tuple[int, ...]:
        """Return the number of tokens of samples along each axis; raise ValueError if they do not fit the model."""
        if data.shape[1:] != self.shape:
            raise ValueError(
                f"{self.medium} has the shape {tuple(data.shape)}, but the model takes (B, "
                f"{', '.join(map(str, self.shape))}); use the same clip, size and features for the loader and the model"
            )
        return self.grid

    def split(self, data: Tensor) -> Tensor:
        """Split samples into tokens (B, N, n_inputs) of the same type; raise ValueError for another size."""
        grid = self.grid_of(data)
        extent = [n * step for n, step in zip(grid, self.patch, strict=True)]
        # `len` would fix the batch size in an exported graph; `shape[0]` does not.
        cells = to_cells(data.reshape(data.shape[0], *extent, self.channels), extent, self.patch)
        if self.channels_first:
            cells = cells.movedim(-1, len(grid) + 1)
        return cells.reshape(data.shape[0], prod(grid), self.n_inputs)

    def join(self, tokens: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Join tokens (B, N, n_inputs) to samples, the inverse of `split`.

        Args:
            tokens: The tokens.
            grid: Number of tokens along each axis; None for the model's.
        """
        grid = self.grid if grid is None else grid
        first, last = ((self.channels,), ()) if self.channels_first else ((), (self.channels,))
        cells = tokens.reshape(tokens.shape[0], *grid, *first, *self.patch, *last)
        data = from_cells(cells.movedim(len(grid) + 1, -1) if self.channels_first else cells)
        return data if len(self.shape) > len(grid) else data[..., 0]

    def inputs(self, tokens: Tensor) -> Tensor:
        """Return tokens as the encoder reads them, float32 (B, V, n_inputs); by default unchanged."""
        return tokens

    def targets(self, tokens: Tensor) -> Tensor:
        """Return tokens as the decoder predicts them, float32 (B, M, n_targets); by default the `inputs` with mean 0
        and variance 1 over all values of a token (unbiased, 1e-6 added).
        """
        inputs = self.inputs(tokens)
        mean, deviation = compute_joint_moments(inputs)
        return (inputs - mean) / deviation

    def restored(self, tokens: Tensor, predicted: Tensor) -> Tensor:
        """Return predicted tokens in the units of samples, by default scaled by the mean and standard deviation of the
        true ones.

        Args:
            tokens: True tokens (B, M, n_inputs).
            predicted: Predictions float32 (B, M, n_targets).
        """
        mean, deviation = compute_joint_moments(self.inputs(tokens))
        return predicted * deviation + mean

    def paint(self, data: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """Return a copy of samples with tokens replaced by predictions; see `restored`.

        Args:
            data: The samples.
            index: Indices of the tokens (B, M).
            predicted: Predictions (B, M, n_targets).
        """
        tokens = self.split(data)
        made = self.restored(gather_tokens(tokens, index), predicted.float())
        return self.join(put_tokens(tokens, index, made), self.grid_of(data))

    def positions(self, width: int) -> Tensor:
        """Return fixed position embeddings float32 (N, width), by default a sinusoid for each axis; raise ValueError if
        the width does not suit them.
        """
        return build_axis_sinusoids(self.grid, width)


class PixelTokens(TokenKind[BatchT]):
    """Tokens of pixels, normalised by ImageNet's mean and standard deviation.

    They stay uint8 until they are gathered, so only tokens that the encoder or the decoder uses are converted.

    Args:
        grid: Token grid.
        target: Targets; see VideoTargets.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, grid: TokenGrid, target: VideoTargets) -> None:
        super().__init__(grid, 3)
        self.target = target
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            each = torch.tensor(values).mul(255.0).expand(self.n_pixels, 3)
            self.register_buffer(name, (each.T if self.channels_first else each).flatten(), persistent=False)

    def inputs(self, tokens: Tensor) -> Tensor:
        """Convert uint8 tokens (B, V, n_inputs) to float32, normalised by ImageNet's mean and standard deviation."""
        return (tokens.float() - self.mean) / self.std

    def targets(self, tokens: Tensor) -> Tensor:
        """See TokenKind; targets "pixels" are the same as `inputs`."""
        return self.inputs(tokens) if self.target == "pixels" else super().targets(tokens)

    def restored(self, tokens: Tensor, predicted: Tensor) -> Tensor:
        """Return predicted tokens in [0, 255]; see TokenKind.

        Args:
            tokens: True tokens.
            predicted: Predictions; targets "pixels" are used unchanged.
        """
        inputs = predicted if self.target == "pixels" else super().restored(tokens, predicted)
        return (inputs * self.std + self.mean).round_().clamp_(0, 255)


class VideoTokens(PixelTokens[VideoBatch]):
    """Cuts clips into (t h w)-ordered cubes of `tubelet * patch * patch` pixels, in (c t h w) order within a cube.

    Channels come first, so the moments of a channel are sums over contiguous values.

    Args:
        grid: Token grid.
        target: Targets; see VideoTargets.
        places: Positions; "line" are VideoMAE's sinusoids, "grid" see `build_grid_positions`.
        smaller: Whether clips may also have fewer tokens along any axis.
    """

    medium = "video"
    axes = ("t", "h", "w")
    channels_first = True

    def __init__(
        self,
        grid: TokenGrid,
        target: VideoTargets = "normalised",
        places: Positions = "line",
        *,
        smaller: bool = False,
    ) -> None:
        super().__init__(grid, target)
        self.places, self.smaller = places, smaller
        if target == "frame":
            self.n_targets //= grid.patch[0]

    def media(self, batch: VideoBatch) -> Tensor:
        """Return the clips of a batch; raise ValueError if it has only some of their tokens."""
        if batch.tokens is not None:
            raise ValueError("the batch contains only some tokens of its clips, but all are needed; use output='rgb'")
        return batch.video

    def of(self, batch: VideoBatch) -> tuple[Tensor, MaskBatch]:
        """Return the clips of a batch, or the cubes of its tokens, and their masks; raise ValueError if one is
        missing.
        """
        mask, tokens = need_mask(batch.mask), batch.tokens
        if tokens is None:
            return batch.video, mask
        if not tokens.targets:
            raise ValueError(
                "the batch contains only its visible tokens, but targets are needed; use output='tokens+targets'"
            )
        cubes = tokens.pixels.view(*tokens.index.shape, self.n_pixels, 3).transpose(2, 3).flatten(2)
        return replace(tokens, pixels=cubes).whole(self.n_tokens), mask

    def completed(self, batch: VideoBatch, predicted: Tensor) -> VideoBatch:
        """See TokenKind.

        Args:
            batch: The batch.
            predicted: The predictions.
        """
        return replace(super().completed(batch, predicted), tokens=None)

    def grid_of(self, data: Tensor) -> tuple[int, ...]:
        """Return the number of tokens (t, h, w) of clips (B, T, H, W, 3), or of cubes; raise ValueError if they do not
        fit the model.
        """
        if data.shape[1:] == (self.n_tokens, self.n_inputs):
            return self.grid
        sides = zip(data.shape[1:4], self.extent, self.patch, strict=False)
        fits = data.ndim == 5 and all(0 < n <= most and n % step == 0 for n, most, step in sides)
        if self.smaller and fits:
            return tuple(n // step for n, step in zip(data.shape[1:4], self.patch, strict=True))
        return super().grid_of(data)

    def split(self, data: Tensor) -> Tensor:
        """Split clips uint8 (B, T, H, W, 3) into cubes uint8 (B, N, n_inputs); return cubes unchanged."""
        return data if data.ndim == 3 and self.grid_of(data) else super().split(data)

    def targets(self, tokens: Tensor) -> Tensor:
        """Convert uint8 cubes (B, M, n_inputs) to float32 targets (B, M, n_targets).

        "pixels" are identical to `inputs`. "normalised" is per cube and channel, as in VideoMAE: pixels in [0, 1],
        unbiased variance over the cube's pixels, division by sqrt(var) + 1e-6. "frame" is the `inputs` of the first
        frame with mean 0 and variance 1 (unbiased, 1e-6 added), in (c h w) order.
        """
        if self.target == "pixels":
            return self.inputs(tokens)
        if self.target == "frame":
            frame = self._get_first_frame(self.inputs(tokens))
            mean, deviation = compute_joint_moments(frame)
            return (frame - mean) / deviation
        centred, _, deviation = self._moments(tokens)
        return centred.mul_(deviation.reciprocal()).flatten(2)

    def restored(self, tokens: Tensor, predicted: Tensor) -> Tensor:
        """Return predicted cubes in [0, 255]; see PixelTokens.

        Args:
            tokens: True cubes.
            predicted: Predictions; a frame is drawn into all frames of its cube.
        """
        if self.target == "pixels":
            return super().restored(tokens, predicted)
        if self.target == "frame":
            mean, deviation = compute_joint_moments(self._get_first_frame(self.inputs(tokens)))
            frame = (predicted * deviation + mean).reshape(*predicted.shape[:-1], 3, 1, -1)
            pixels = frame.expand(-1, -1, -1, self.patch[0], -1).flatten(2) * self.std + self.mean
        else:
            _, mean, deviation = self._moments(tokens)
            pixels = (predicted.reshape(*predicted.shape[:2], 3, self.n_pixels) * deviation + mean).flatten(2)
        return pixels.round_().clamp_(0, 255)

    def positions(self, width: int) -> Tensor:
        """Return fixed position embeddings float32 (N, width); raise ValueError if the width does not suit them."""
        if self.places == "grid":
            return build_grid_positions(self.grid, width)
        return build_interleaved_sinusoid(self.n_tokens, width)

    def _get_first_frame(self, values: Tensor) -> Tensor:
        """Return the values of a cube's first frame: (..., n_inputs) to (..., 3 h w)."""
        return values.reshape(*values.shape[:-1], 3, self.patch[0], -1)[..., 0, :].flatten(-2)

    def _moments(self, cubes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the centred pixels float32 (B, M, 3, n_pixels) in [-255, 255], and the mean and standard deviation (B,
        M, 3, 1).

        torch.var_mean gives the same results and is ten times slower on a CPU.
        """
        pixels = cubes.to(self.mean.dtype).reshape(*cubes.shape[:2], 3, self.n_pixels)
        mean = pixels.mean(dim=3, keepdim=True)
        centred = pixels.sub_(mean)
        norm = torch.linalg.vector_norm(centred, dim=3, keepdim=True)
        return centred, mean, norm / (self.n_pixels - 1) ** 0.5 + 255e-6


class ImageTokens(PixelTokens[ImageBatch]):
    """Cuts images into (h w)-ordered patches, in (h w c) order within a patch.

    Args:
        grid: Token grid.
        target: Targets; see Targets.
        places: Positions; see ImagePositions.
    """

    medium = "image"
    axes = ("h", "w")

    def __init__(self, grid: TokenGrid, target: Targets = "normalised", places: ImagePositions = "rows") -> None:
        super().__init__(grid, target)
        self.places = places

    def positions(self, width: int) -> Tensor:
        """Return fixed positions float32 (N, width); raise ValueError if the width is not a multiple of 4."""
        return build_image_positions(self.grid, width, self.places)


class SpectrogramTokens(TokenKind[AudioBatch]):
    """Cuts normalised spectrograms into (time freq)-ordered patches, as Audio-MAE does (Huang et al., 2022, 3.1)."""

    medium = "spectrogram"
    axes = ("time", "freq")
