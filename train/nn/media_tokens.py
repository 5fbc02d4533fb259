"""Clips, images and spectrograms as tokens: inputs of an encoder and targets of a decoder.

Images follow MAE (He et al., 2022, 3): pixels are normalised by ImageNet's mean and standard deviation, and a target is
such a patch, unchanged or normalised to mean 0 and variance 1 over all its values, with the colours together.
Spectrograms, which the loader has normalised, have the same targets.
"""

from dataclasses import replace
from math import prod
from typing import Generic, Literal

import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch, TokenGrid
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, VideoBatch
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.model import need_mask

from .grid import build_axis_sinusoids, build_grid_positions, build_interleaved_sinusoid, gather_tokens, put_tokens
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


class VideoTokens(nn.Module):
    """Cuts clips into (t h w)-ordered cubes of `tubelet * patch * patch` pixels, in (c t h w) order within a cube.

    Cubes stay uint8 until they are gathered, so only cubes that the encoder or the decoder uses are converted. Channels
    come first within a cube, so the moments of a channel are sums over contiguous values.

    Args:
        grid: Token grid.
        target: Targets; see VideoTargets.
        places: Positions; "line" are VideoMAE's sinusoids, "grid" see `build_grid_positions`.
        smaller: Whether clips may also have fewer tokens along any axis.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        grid: TokenGrid,
        target: VideoTargets = "normalised",
        places: Positions = "line",
        *,
        smaller: bool = False,
    ) -> None:
        super().__init__()
        grid.need("t", "h", "w", by="a model of video")
        self.target, self.places, self.smaller = target, places, smaller
        self.grid, self.patch = grid.shape, grid.patch
        self.extent = tuple(n * step for n, step in zip(grid.shape, grid.patch, strict=True))
        self.n_tokens = grid.size
        self.n_pixels = prod(grid.patch)
        self.n_inputs = 3 * self.n_pixels
        self.n_targets = self.n_inputs // grid.patch[0] if target == "frame" else self.n_inputs
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            per_value = torch.tensor(values).mul(255.0).repeat_interleave(self.n_pixels)
            self.register_buffer(name, per_value, persistent=False)

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
        """Return the batch with its target tokens replaced by the predictions (B, M, n_targets).

        Args:
            batch: The batch.
            predicted: The predictions.
        """
        video, mask = self.of(batch)
        return replace(batch, video=self.paint(video, mask.target, predicted), tokens=None)

    def grid_of(self, video: Tensor) -> tuple[int, ...]:
        """Return the number of tokens (t, h, w) of clips (B, T, H, W, 3), or of cubes; raise ValueError if they do not
        fit the model.
        """
        if video.shape[1:] in ((self.n_tokens, self.n_inputs), (*self.extent, 3)):
            return self.grid
        sides = zip(video.shape[1:4], self.extent, self.patch, strict=False)
        fits = video.ndim == 5 and all(0 < n <= most and n % step == 0 for n, most, step in sides)
        if not self.smaller or not fits:
            raise ValueError(
                f"video has the shape {tuple(video.shape)}, but the model takes (B, "
                f"{', '.join(map(str, self.extent))}, 3); use the same clip for the loader and the model"
            )
        return tuple(n // step for n, step in zip(video.shape[1:4], self.patch, strict=True))

    def split(self, video: Tensor) -> Tensor:
        """Split video uint8 (B, T, H, W, 3) into cubes uint8 (B, N, n_inputs); return cubes unchanged."""
        (t, h, w), (pt, ph, pw) = self.grid_of(video), self.patch
        if video.ndim == 3:
            return video
        cubes = video.reshape(-1, t, pt, h, ph, w, pw, 3).permute(0, 1, 3, 5, 7, 2, 4, 6)
        return cubes.reshape(-1, t * h * w, self.n_inputs)

    def inputs(self, cubes: Tensor) -> Tensor:
        """Convert uint8 cubes (B, V, n_inputs) to float32, normalised by ImageNet's mean and standard deviation."""
        return (cubes.float() - self.mean) / self.std

    def targets(self, cubes: Tensor) -> Tensor:
        """Convert uint8 cubes (B, M, n_inputs) to float32 targets (B, M, n_targets).

        "pixels" are identical to `inputs`. "normalised" is per cube and channel, as in VideoMAE: pixels in [0, 1],
        unbiased variance over the cube's pixels, division by sqrt(var) + 1e-6. "frame" is the `inputs` of the first
        frame with mean 0 and variance 1 (unbiased, 1e-6 added), in (c h w) order.
        """
        if self.target == "pixels":
            return self.inputs(cubes)
        if self.target == "frame":
            frame = self._get_first_frame(self.inputs(cubes))
            mean, deviation = compute_joint_moments(frame)
            return (frame - mean) / deviation
        centred, _, deviation = self._moments(cubes)
        return centred.mul_(deviation.reciprocal()).flatten(2)

    def paint(self, video: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """Replace cubes of clips by predictions.

        A normalised cube is scaled by the mean and standard deviation of the true cube. Pixels are used unchanged. A
        frame is scaled and painted into all frames of its cube.

        Args:
            video: Clips.
            index: Indices of the cubes (B, M).
            predicted: Predictions (B, M, n_targets).

        Returns:
            Clips uint8 (B, T, H, W, 3).
        """
        (t, h, w), (pt, ph, pw) = self.grid_of(video), self.patch
        cubes = self.split(video)
        if self.target == "frame":
            pixels = self._with_frame(gather_tokens(cubes, index), predicted.float())
        elif self.target == "pixels":
            pixels = predicted.float() * self.std + self.mean
        else:
            _, mean, deviation = self._moments(gather_tokens(cubes, index))
            pixels = (predicted.float().reshape(*index.shape, 3, self.n_pixels) * deviation + mean).flatten(2)
        cubes = put_tokens(cubes, index, pixels.round_().clamp_(0, 255))
        painted = cubes.reshape(-1, t, h, w, 3, pt, ph, pw).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return painted.reshape(-1, t * pt, h * ph, w * pw, 3)

    def positions(self, width: int) -> Tensor:
        """Return fixed position embeddings float32 (N, width); raise ValueError if the width does not suit them."""
        if self.places == "grid":
            return build_grid_positions(self.grid, width)
        return build_interleaved_sinusoid(self.n_tokens, width)

    def _get_first_frame(self, values: Tensor) -> Tensor:
        """Return the values of a cube's first frame: (..., n_inputs) to (..., 3 h w)."""
        return values.reshape(*values.shape[:-1], 3, self.patch[0], -1)[..., 0, :].flatten(-2)

    def _with_frame(self, cubes: Tensor, predicted: Tensor) -> Tensor:
        """Return cubes (B, M, n_inputs) in [0, 255] with the scaled predicted frame in all their frames."""
        mean, deviation = compute_joint_moments(self._get_first_frame(self.inputs(cubes)))
        frame = (predicted * deviation + mean).reshape(*predicted.shape[:-1], 3, 1, -1)
        return frame.expand(-1, -1, -1, self.patch[0], -1).flatten(2) * self.std + self.mean

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


class ImageTokens(nn.Module):
    """Cuts images into (h w)-ordered patches, in (h w c) order within a patch.

    Patches stay uint8 until they are gathered, so only patches that the encoder sees or the decoder predicts are
    converted.

    Args:
        grid: Token grid.
        target: Targets; see Targets.
        places: Positions; see ImagePositions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, grid: TokenGrid, target: Targets = "normalised", places: ImagePositions = "rows") -> None:
        super().__init__()
        self.target, self.places = target, places
        grid.need("h", "w", by="a model of images")
        self.grid, self.patch = grid.shape, grid.patch
        self.extent = tuple(n * step for n, step in zip(grid.shape, grid.patch, strict=True))
        self.n_tokens = grid.size
        n_pixels = grid.patch[0] * grid.patch[1]
        self.n_inputs = self.n_targets = 3 * n_pixels
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).mul(255.0).repeat(n_pixels), persistent=False)

    def media(self, batch: ImageBatch) -> Tensor:
        """Return the images of a batch."""
        return batch.image

    def of(self, batch: ImageBatch) -> tuple[Tensor, MaskBatch]:
        """Return the images of a batch and their masks; raise ValueError if it has no masks."""
        return batch.image, need_mask(batch.mask)

    def completed(self, batch: ImageBatch, predicted: Tensor) -> ImageBatch:
        """Return the batch with its target tokens replaced by the predictions (B, M, n_targets).

        Args:
            batch: The batch.
            predicted: The predictions.
        """
        image, mask = self.of(batch)
        return replace(batch, image=self.paint(image, mask.target, predicted))

    def split(self, image: Tensor) -> Tensor:
        """Split images uint8 (B, H, W, 3) into patches uint8 (B, N, n_inputs); raise ValueError for another size."""
        (h, w), (ph, pw) = self.grid, self.patch
        if image.shape[1:] != (*self.extent, 3):
            raise ValueError(
                f"images have the shape {tuple(image.shape)}, but the model takes (B, {self.extent[0]}, "
                f"{self.extent[1]}, 3); use one size for the loader and the model"
            )
        return image.reshape(-1, h, ph, w, pw, 3).transpose(2, 3).reshape(-1, self.n_tokens, self.n_inputs)

    def inputs(self, patches: Tensor) -> Tensor:
        """Convert uint8 patches (B, V, n_inputs) to float32, normalised by ImageNet's mean and standard deviation."""
        return (patches.float() - self.mean) / self.std

    def targets(self, patches: Tensor) -> Tensor:
        """Convert uint8 patches (B, M, n_inputs) to float32 targets (B, M, n_targets).

        "pixels" are identical to `inputs`. "normalised" has mean 0 and variance 1 in each patch; the variance is
        unbiased, and 1e-6 is added to it.
        """
        if self.target == "pixels":
            return self.inputs(patches)
        mean, deviation = compute_joint_moments(self.inputs(patches))
        return (self.inputs(patches) - mean) / deviation

    def paint(self, image: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """Replace patches of images by predictions.

        A normalised patch is scaled by the mean and standard deviation of the true patch; pixels are used unchanged.

        Args:
            image: Images.
            index: Indices of the patches (B, M).
            predicted: Predictions (B, M, n_targets).

        Returns:
            Images uint8 (B, H, W, 3).
        """
        (h, w), (ph, pw) = self.grid, self.patch
        patches = self.split(image)
        inputs = predicted.float()
        if self.target == "normalised":
            mean, deviation = compute_joint_moments(self.inputs(gather_tokens(patches, index)))
            inputs = inputs * deviation + mean
        pixels = inputs * self.std + self.mean
        patches = put_tokens(patches, index, pixels.round_().clamp_(0, 255))
        return patches.reshape(-1, h, w, ph, pw, 3).transpose(2, 3).reshape(image.shape)

    def positions(self, width: int) -> Tensor:
        """Return fixed positions float32 (N, width); raise ValueError if the width is not a multiple of 4."""
        return build_image_positions(self.grid, width, self.places)


class PlaneTokens(nn.Module, Generic[BatchT]):
    """Cuts values over two axes into patches in the order of the grid; a patch is predicted relative to its mean and
    deviation. Subclasses define `of` and `completed`.
    """

    def __init__(self, grid: TokenGrid) -> None:
        super().__init__()
        self.grid, self.patch = grid.shape, grid.patch
        self.extent = tuple(n * step for n, step in zip(grid.shape, grid.patch, strict=True))
        self.n_tokens = grid.size
        self.n_inputs = self.n_targets = grid.patch[0] * grid.patch[1]

    def of(self, batch: BatchT) -> tuple[Tensor, MaskBatch]:
        """Return the values of a batch and their masks; raise ValueError if one is missing."""
        raise NotImplementedError

    def media(self, batch: BatchT) -> Tensor:
        """Return the values of a batch."""
        return self.of(batch)[0]

    def completed(self, batch: BatchT, predicted: Tensor) -> BatchT:
        """Return the batch with its target tokens replaced by the predictions (B, M, n_targets).

        Args:
            batch: The batch.
            predicted: The predictions.
        """
        raise NotImplementedError

    def split(self, values: Tensor) -> Tensor:
        """Split values float32 (B, T, F) into patches float32 (B, N, n_inputs); raise ValueError for another size."""
        (t, f), (pt, pf) = self.grid, self.patch
        if values.shape[1:] != self.extent:
            raise ValueError(
                f"samples have the shape {tuple(values.shape)}, but the model takes {('B', *self.extent)}; use the "
                "same clip and features for the loader and the model"
            )
        patches = values.reshape(-1, t, pt, f, pf).transpose(2, 3)
        return patches.reshape(-1, self.n_tokens, self.n_inputs)

    def inputs(self, patches: Tensor) -> Tensor:
        """Return the patches unchanged, since the loader has normalised them."""
        return patches

    def targets(self, patches: Tensor) -> Tensor:
        """Normalise patches (B, M, n_inputs) to mean 0 and variance 1 over their values (unbiased, 1e-6 added)."""
        mean, deviation = compute_joint_moments(patches)
        return (patches - mean) / deviation

    def paint(self, values: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """Replace patches by predictions of normalised patches, scaled by the mean and standard deviation of the true
        ones.

        Args:
            values: Values (B, T, F).
            index: Indices of the patches (B, M).
            predicted: Predictions (B, M, n_targets).
        """
        (t, f), (pt, pf) = self.grid, self.patch
        patches = self.split(values)
        mean, deviation = compute_joint_moments(gather_tokens(patches, index))
        patches = put_tokens(patches, index, predicted.float() * deviation + mean)
        return patches.reshape(-1, t, f, pt, pf).transpose(2, 3).reshape(values.shape)

    def positions(self, width: int) -> Tensor:
        """Return fixed position embeddings float32 (N, width): the sinusoid of the time, then of the other axis.

        Raises:
            ValueError: The width is not a multiple of 4.
        """
        return build_axis_sinusoids(self.grid, width)


class SpectrogramTokens(PlaneTokens[AudioBatch]):
    """Cuts normalised spectrograms into (time freq)-ordered patches, as Audio-MAE does (Huang et al., 2022, 3.1)."""

    def __init__(self, grid: TokenGrid) -> None:
        grid.need("time", "freq", by="a model of spectrograms")
        super().__init__(grid)

    def media(self, batch: AudioBatch) -> Tensor:
        """Return the spectrograms of a batch; raise ValueError if it has none."""
        if batch.spectrogram is None:
            raise ValueError("the batch has no spectrogram; take it from an audio_loader")
        return batch.spectrogram

    def of(self, batch: AudioBatch) -> tuple[Tensor, MaskBatch]:
        """Return the spectrograms of a batch and their masks; raise ValueError if one is missing."""
        return self.media(batch), need_mask(batch.mask)

    def completed(self, batch: AudioBatch, predicted: Tensor) -> AudioBatch:
        """Return the batch with its target tokens replaced by the predictions (B, M, n_targets).

        Args:
            batch: The batch.
            predicted: The predictions.
        """
        spectrogram, mask = self.of(batch)
        return replace(batch, spectrogram=self.paint(spectrogram, mask.target, predicted))
