"""The loader of masked point clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...augment.diffusion import Noise
from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from .augment import PointAugment
from .batch import PointsBatch
from .data import PointsData
from .read import PointSelection
from .tokens import PointTokens


class PointsSettings(Options, total=False):
    """The fields of `PointsData`, with its defaults, and the options of all loaders."""

    select: PointSelection
    augment: PointAugment
    tokens: PointTokens
    mask: Mask | None
    noise: Noise | None
    views: int
    component: str | None
    fields: Fields


def points_loader(location: str | Path, **settings: Unpack[PointsSettings]) -> Loader[PointsBatch]:
    """The loader of masked point clouds of the split in the folder `location`, such as `data/shards/modelnet40/train`.

    settings: the fields of `PointsData` (select, augment, tokens, mask, noise, ...) and the options of all loaders
    (`Options`: batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of point clouds.
    """
    return PointsData.opened(location, settings)
