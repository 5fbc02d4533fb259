"""The loader of masked images with masked texts."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...augment import Augmentation
from ...augment.colour import ColourJitter
from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from .batch import ImageTextBatch
from .data import ImageTextData


class ImageTextSettings(Options, total=False):
    """The fields of `ImageTextData`, with its defaults, and the options of all loaders."""

    size: int
    patch: int
    text: tuple[str, ...]
    length: int
    target: tuple[str, ...]
    target_length: int
    then: tuple[str, ...]
    image_mask: Mask | None
    text_mask: Mask | None
    pairs: bool
    segments: bool
    augment: Augmentation | None
    colour: ColourJitter | None
    views: int
    picture: int
    fields: Fields


def image_text_loader(location: str | Path, **settings: Unpack[ImageTextSettings]) -> Loader[ImageTextBatch]:
    """The loader of masked images with masked texts of a split, such as `data/shards/tuxpaint-stamps/train`.

    settings: the fields of `ImageTextData` (size, text, length, image_mask, text_mask, ...) and the options of all
    loaders (`Options`: batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of images with texts.
    """
    return ImageTextData.opened(location, settings)
