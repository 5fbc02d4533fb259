"""The loader of masked pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...augment import Augmentation
from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from .batch import ImageBatch
from .colour import ColourJitter
from .data import ImageData


class ImageSettings(Options, total=False):
    """The fields of `ImageData`, whose defaults they have, and the options of all loaders."""

    size: int
    patch: int
    mask: Mask | None
    augment: Augmentation | None
    colour: ColourJitter | None
    views: int
    component: str | None
    fields: Fields


def image_loader(location: str | Path, **settings: Unpack[ImageSettings]) -> Loader[ImageBatch]:
    """A loader of masked pictures from a folder of shards (one split, such as `data/shards/imagefolder/train`).

    settings: the fields of `ImageData` (size, patch, mask, augment, colour, views, ...), and what all loaders take:
    batch_size, seed, shuffle, workers and the others of `Options`. batch_size is samples per rank.

    Errors: ValueError for settings, ShardError where the location holds no finished split.
    """
    return ImageData.opened(location, settings)
