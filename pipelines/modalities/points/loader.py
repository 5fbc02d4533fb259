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
    """The fields of `PointsData`, whose defaults they have, and the options of all loaders."""

    select: PointSelection
    augment: PointAugment
    tokens: PointTokens
    mask: Mask | None
    noise: Noise | None
    views: int
    component: str | None
    fields: Fields


def points_loader(location: str | Path, **settings: Unpack[PointsSettings]) -> Loader[PointsBatch]:
    """A loader of masked clouds from a folder of shards (one split, such as `data/shards/modelnet40/train`).

    settings: the fields of `PointsData` (select, augment, tokens, mask, noise, ...), and what all loaders take:
    batch_size, seed, shuffle, workers and the others of `Options`.

    Errors: ValueError for settings, ShardError where the location holds no finished split of points.
    """
    return PointsData.opened(location, settings)
