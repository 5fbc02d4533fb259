"""The loader of masked images."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...augment import Augmentation
from ...augment.colour import ColourJitter
from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from .batch import ImageBatch
from .data import ImageData


class ImageSettings(Options, total=False):
    """The fields of `ImageData`, with its defaults, and the options of all loaders."""

    size: int
    patch: int
    mask: Mask | None
    augment: Augmentation | None
    colour: ColourJitter | None
    views: int
    component: str | None
    fields: Fields


def image_loader(location: str | Path, **settings: Unpack[ImageSettings]) -> Loader[ImageBatch]:
    """The loader of masked images of the split in the folder `location`, such as `data/shards/imagefolder/train`.

    settings: the fields of `ImageData` (size, patch, mask, augment, colour, views, ...) and the options of all loaders
    (`Options`: batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of images.
    """
    return ImageData.opened(location, settings)
