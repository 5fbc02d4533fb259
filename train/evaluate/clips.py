"""Evaluates the reconstruction of masked video clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...pipelines.augment import CenterCrop
from ...pipelines.masks import PartDecoded
from ...pipelines.masks.core.batch import MaskBatch
from ...pipelines.modalities.video.batch import VideoBatch
from ...pipelines.modalities.video.data import VideoData
from ...shards.format.manifest import Manifest
from ..core.losses import squared
from ..nn.masked_autoencoder import MaskedAutoencoder
from ..nn.select import gather_tokens
from ..nn.video_tokens import VideoTokens
from .guesses import COPY, GUESSES, MEAN, Guess
from .held_out import HeldOut, Score, batches
from .patches import patch_losses

MEASURED = 64
"""The largest number of clips that are measured."""
LEAST = 24
"""As many clips are measured at least: of a small split, other moments of its samples."""
_AT_ONCE = 8
UNIT = "deviations of a colour (57 of 255 levels)"
SHRUNK = "a copy of the nearest visible token, shrunk towards the mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipLosses:
    """Mean squared errors over the hidden pixels of `samples` clips, in deviations: the model's, and of each guess."""

    model: float
    guesses: Mapping[str, float]
    samples: int

    @property
    def best(self) -> str:
        """The name of the best guess."""
        return min(self.guesses, key=lambda name: self.guesses[name])

    def words(self) -> str:
        """The model's error beside the two best guesses, in words."""
        two = sorted(self.guesses, key=lambda name: self.guesses[name])[:2]
        return "; ".join((f"{self.model:.3f}", *(self._margin(name) for name in two)))

    def _margin(self, name: str) -> str:
        guess = self.guesses[name]
        change = f"{abs(self.model / guess - 1):.0%} {'below' if self.model < guess else 'above'}"
        return f"{change} {name} ({guess:.3f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelLosses:
    """The losses on centre crops of the clips of a split, and on random crops, as the recipe's."""

    centres: ClipLosses
    crops: ClipLosses

    def held_out(self, config: VideoData) -> HeldOut:
        """The two losses beside the best guesses."""
        crops = self.crops
        return HeldOut(
            facts={
                "clip": _clip(config),
                f"error on {self.centres.samples} centre crops": self.centres.words(),
                f"error on {crops.samples} random crops": crops.words(),
                "mask": repr(wholly_decoded(config).mask),
            },
            loss=f"The mean squared error of hidden pixels, in {UNIT}",
            baseline=f"{crops.best}, on random crops",
            baseline_loss=crops.guesses[crops.best],
            score=Score(
                name="squared error of hidden pixels", value=self.centres.model, baselines=self.centres.guesses
            ),
        )

    def table(self) -> tuple[tuple[str, str], ...]:
        """The losses of the model and of all guesses, by name, in words."""
        rows = {"the model": (self.centres.model, self.crops.model)} | {
            name: (guess, self.crops.guesses[name]) for name, guess in self.centres.guesses.items()
        }
        ordered = sorted(rows.items(), key=lambda row: row[1])
        return tuple((name, f"{own:.3f} on centre crops, {crop:.3f} on random crops") for name, (own, crop) in ordered)


def held_out(config: VideoData, model: MaskedAutoencoder[VideoBatch], data: str | Path) -> HeldOut:
    """The loss on clips of shuffled samples of the split, compared with those of guesses."""
    if of_pixels(model):
        return pixel_losses(config, model, data).held_out(config)
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    found = patch_losses(model, batches(config, data, size=size, samples=n // size * size, shuffle=True))
    facts = found.facts(f"loss on {found.samples} of these clips")
    return HeldOut(facts={"clip": _clip(config), **facts, "mask": repr(config.mask)}, score=found.score())


def pixel_losses(config: VideoData, model: MaskedAutoencoder[VideoBatch], data: str | Path) -> PixelLosses:
    """The losses of a model of pixels on the split, and those of all guesses; the same at each call."""
    return PixelLosses(
        centres=clip_losses(model, measured_clips(config, data)),
        crops=clip_losses(model, measured_clips(config, data, random_crops=True)),
    )


def _clip(config: VideoData) -> str:
    return f"{config.clip.frames} frames, {config.clip.spacing}, {config.clip.size} px"


def of_pixels(model: MaskedAutoencoder[VideoBatch]) -> bool:
    """Whether the model predicts pixels, which can be compared with guesses from other pixels."""
    return isinstance(model.tokens, VideoTokens) and model.tokens.target == "pixels"


def wholly_decoded(config: VideoData) -> VideoData:
    """The config with one view in true colours, in which every hidden token is predicted."""
    mask = config.mask
    return replace(config, views=1, colour=None, mask=mask.mask if isinstance(mask, PartDecoded) else mask)


def measured_clips(config: VideoData, data: str | Path, *, random_crops: bool = False) -> list[VideoBatch]:
    """Batches of LEAST to MEASURED clips of the split, each of whose samples comes equally often; always the same.

    The crops are centred, or random as the recipe's.
    """
    n = min(len(Manifest.load(data)), MEASURED)
    shown = wholly_decoded(config if random_crops else replace(config, augment=CenterCrop()))
    rounds = -(-LEAST // n)
    return list(batches(shown, data, size=min(n, _AT_ONCE), samples=n, shuffle=True, rounds=rounds))


@torch.inference_mode()
def clip_losses(model: MaskedAutoencoder[VideoBatch], clips: Iterable[VideoBatch]) -> ClipLosses:
    """The losses of a model of pixels on batches with masks, and those of all guesses (see `guess_losses`)."""
    tokens = _pixel_tokens(model)
    found = (tokens.of(batch) for batch in clips)
    return guess_losses(
        tokens,
        (
            (tokens.inputs(tokens.split(data)), mask, model.predict(data, mask.visible, mask.target))
            for data, mask in found
        ),
    )


@torch.inference_mode()
def guess_losses(tokens: VideoTokens, predicted: Iterable[tuple[Tensor, MaskBatch, Tensor]]) -> ClipLosses:
    """The losses of a model of pixels and of all guesses; ValueError where nothing is hidden.

    predicted: of each batch, the cubes (B, N, 3 * pixels) of `tokens`, the masks, and what the model makes of the
    target cubes (B, M, 3 * pixels). The shrunk copy is the best of all mixtures of the nearest token's copy and the
    mean, found on these very clips.
    """
    sums = dict.fromkeys(("model", *GUESSES), 0.0)
    with_copy, copies, weights, samples = 0.0, 0.0, 0.0, 0
    for cubes, mask, own in predicted:
        true = gather_tokens(cubes, mask.target)
        made = {"model": own} | {name: guess(tokens, cubes, mask) for name, guess in GUESSES.items()}
        for name, values in made.items():
            sums[name] += float(squared(values, true, mask.weight).total)
        rest, step = true - made[MEAN], made[COPY] - made[MEAN]
        with_copy += float(((step * rest).mean(dim=2) * mask.weight).sum())
        copies += float((step.square().mean(dim=2) * mask.weight).sum())
        weights += float(mask.weight.sum())
        samples += int((mask.weight.sum(dim=1) > 0).sum())
    if not samples:
        raise ValueError("losses need at least one clip with a hidden token, got none; take a split with a sample")
    sums[SHRUNK] = sums[MEAN] - with_copy**2 / max(copies, 1e-12)
    error = sums.pop("model")
    return ClipLosses(
        model=error / weights, guesses={name: total / weights for name, total in sums.items()}, samples=samples
    )


@torch.inference_mode()
def beside_guess(
    guess: Guess, model: MaskedAutoencoder[VideoBatch], batch: VideoBatch
) -> tuple[VideoBatch, list[tuple[float, float]]]:
    """The batch with its target cubes replaced by a guess, and the errors of the model and of the guess in each clip.

    ValueError for a model that does not predict pixels.
    """
    tokens = _pixel_tokens(model)
    data, mask = tokens.of(batch)
    cubes = tokens.inputs(tokens.split(data))
    true, guessed = gather_tokens(cubes, mask.target), guess(tokens, cubes, mask)
    errors = [
        ((made - true).square().mean(dim=2) * mask.weight).sum(dim=1) / mask.weight.sum(dim=1).clamp(min=1e-12)
        for made in (model.predict(data, mask.visible, mask.target), guessed)
    ]
    return tokens.completed(batch, guessed), list(zip(*(error.tolist() for error in errors), strict=True))


def _pixel_tokens(model: MaskedAutoencoder[VideoBatch]) -> VideoTokens:
    if not isinstance(model.tokens, VideoTokens) or model.tokens.target != "pixels":
        raise ValueError("guesses are of pixels, and this model does not predict those; give it target='pixels'")
    return model.tokens
