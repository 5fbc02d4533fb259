"""The loader of masked texts."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from .batch import TextBatch
from .data import Layout, TextData


class TextSettings(Options, total=False):
    """The fields of `TextData`, with its defaults, and the options of all loaders."""

    length: int
    packing: Layout
    mask: Mask | None
    views: int
    fields: Fields


def text_loader(location: str | Path, **settings: Unpack[TextSettings]) -> Loader[TextBatch]:
    """The loader of masked texts of the split in the folder `location`, such as `data/shards/gcide/train`.

    settings: the fields of `TextData` (length, packing, mask, views, ...) and the options of all loaders (`Options`:
    batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of texts.
    """
    return TextData.opened(location, settings)
