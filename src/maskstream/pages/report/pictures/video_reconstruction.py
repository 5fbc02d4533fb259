"""What a model reconstructs of masked clips, and how that is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....pipelines.modalities.video.batch import VideoBatch
from ....train.models.masked_autoencoder import MaskedAutoencoder
from ....train.tokens.video import VideoTokens
from ...figures.pictures import Bool, Grid, UInt8, cell_size, check_grid, darken, data_uri, resize, token_pixels
from ...figures.tokens import ClipTokens

SHOWN_FRAMES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameTriple:
    """One frame as it was, as the encoder saw it, and as the model completes it, as `data:` addresses."""

    pts_s: float
    original: str
    seen: str
    reconstruction: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionView:
    """The shown frames of one clip; `unpredicted` says whether some tokens were neither seen nor predicted."""

    key: str
    frames: tuple[FrameTriple, ...]
    unpredicted: bool


def reconstruct(model: MaskedAutoencoder[VideoBatch], batch: VideoBatch) -> tuple[UInt8, float]:
    """The clips of `batch` as the model completes them, uint8 (B, T, H, W, 3), and its loss on them.

    The target tokens are the model's predictions, the others the clips' own. A prediction is of a normalised token, and
    is drawn with the mean and deviation of the true one. The batch is on the model's device.
    """
    if not isinstance(model.tokens, VideoTokens):
        raise ValueError(f"clips are reconstructed by models of video tokens, got one of {type(model.tokens).__name__}")
    if batch.mask is None:
        raise ValueError(NO_MASK)
    with torch.inference_mode():
        return model.reconstructed(batch).video.cpu().numpy(), float(model(batch).loss())


def reconstruction_views(batch: VideoBatch, made: UInt8, grid: Grid, side_px: float) -> list[ReconstructionView]:
    """A few frames of each clip of `batch`: original, what the encoder saw, and `made` (see `reconstruct`)."""
    if batch.mask is None:
        raise ValueError(NO_MASK)
    if made.shape != tuple(batch.video.shape):
        raise ValueError(f"reconstructions have the shape of the clips, {tuple(batch.video.shape)}, got {made.shape}")
    _, length, height, width, _ = made.shape
    check_grid(grid, length, height, width)
    shown = np.unique(np.linspace(0, length - 1, min(SHOWN_FRAMES, length)).round().astype(np.int64))
    views = []
    for i, key in enumerate(batch.key):
        tokens = ClipTokens.of(batch.mask, i, grid)
        rows = _rows(batch.video[i].cpu().numpy()[shown], made[i][shown], tokens, grid, shown, side_px)
        frames = (
            FrameTriple(pts_s=pts_s, original=data_uri(a), seen=data_uri(b), reconstruction=data_uri(c))
            for pts_s, a, b, c in zip(batch.pts_s[i][shown].tolist(), *rows, strict=True)
        )
        unpredicted = bool((tokens.masked & ~tokens.targeted).any())
        views.append(ReconstructionView(key=key, frames=tuple(frames), unpredicted=unpredicted))
    return views


def complete(video: UInt8, made: UInt8, masked: Bool, targeted: Bool) -> UInt8:
    """What may be shown as the model's work, uint8 (T, H, W, 3): `made` where a token was hidden and predicted.

    Where the encoder saw a token it is `video`, and where it was neither seen nor predicted it is `video` darkened.
    masked, targeted: bool (T, H, W).
    """
    return np.where((masked & targeted)[..., None], made, darken(video, masked))


def _rows(
    video: UInt8, made: UInt8, tokens: ClipTokens, grid: Grid, shown: npt.NDArray[np.int64], side_px: float
) -> tuple[UInt8, UInt8, UInt8]:
    """The three rows of pictures: `video` and `made` are the frames of the numbers `shown`."""
    cell = cell_size(grid, side_px)
    height, width = grid.shape[1] * cell[0], grid.shape[2] * cell[1]
    masked = token_pixels(tokens.masked, grid, cell)[shown]
    targeted = token_pixels(tokens.targeted, grid, cell)[shown]
    video, made = resize(video, height, width), resize(made, height, width)
    return video, darken(video, masked), complete(video, made, masked, targeted)


NO_MASK = "a reconstruction is of masked clips, but the batch has no mask; give the loader mask="
