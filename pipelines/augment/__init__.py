"""Augmentations of video: random crops and flips of a clip.

An augmentation is a frozen config; `draw(width, height, size, rng)` returns a `Crop` in source pixels, which is applied
to both pixels and motion vectors. It needs only the frame size, so it is drawn before reading.
"""

from collections.abc import Callable

from .crop import Augmentation, CenterCrop, Crop, MultiScaleCrop, NestedCrop, RandomResizedCrop, SharedCrop
from .native import Native
from .transform import Transform

AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "center": CenterCrop,
    "multi-scale": MultiScaleCrop,
    "random-resized": RandomResizedCrop,
}
"""Augmentations by name: for evaluation, from VideoMAE, and from MAE-ST (without its flip)."""

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "CenterCrop",
    "Crop",
    "MultiScaleCrop",
    "Native",
    "NestedCrop",
    "RandomResizedCrop",
    "SharedCrop",
    "Transform",
]
