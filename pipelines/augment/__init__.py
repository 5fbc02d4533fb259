"""Augmentations of video: which part of its frames a clip shows.

An augmentation is a frozen config; `draw(width, height, size, rng)` gives a `Crop` in source pixels, which both the
decoder (pixels) and the flow (vectors) apply. It needs only the frame's size, so it is drawn before a byte is read.
"""

from __future__ import annotations

from collections.abc import Callable

from .crop import Augmentation, CenterCrop, Crop, MultiScaleCrop, RandomResizedCrop

AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "center": CenterCrop,
    "multi-scale": MultiScaleCrop,
    "random-resized": RandomResizedCrop,
}
"""Augmentations by name: for evaluation, as in VideoMAE, as in MAE-ST (without its flip)."""

__all__ = ["AUGMENTATIONS", "Augmentation", "CenterCrop", "Crop", "MultiScaleCrop", "RandomResizedCrop"]
