"""The loader of masked poses."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from .batch import PoseBatch
from .camera import Cameras
from .clip import PoseClip
from .data import PoseData


class PoseSettings(Options, total=False):
    """The fields of `PoseData`, with its defaults, and the options of all loaders."""

    clip: PoseClip
    joints: int
    cameras: Cameras
    flip: float | None
    mask: Mask | None
    views: int
    component: str | None
    fields: Fields


def pose_loader(location: str | Path, **settings: Unpack[PoseSettings]) -> Loader[PoseBatch]:
    """The loader of masked poses of the split in the folder `location`, such as `data/shards/sample-pose/train`.

    settings: the fields of `PoseData` (clip, cameras, mask, ...) and the options of all loaders (`Options`: batch_size,
    seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of poses.
    """
    return PoseData.opened(location, settings)
