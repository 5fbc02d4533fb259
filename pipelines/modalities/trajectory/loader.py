"""The loader of masked clips of walks."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...augment import Augmentation
from ...augment.colour import ColourJitter
from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from ..video.clip import VideoClip
from .batch import TrajectoryBatch
from .data import TrajectoryData


class TrajectorySettings(Options, total=False):
    """The fields of `TrajectoryData`, with its defaults, and the options of all loaders."""

    clip: VideoClip
    ahead_s: float
    depth: bool
    mask: Mask | None
    augment: Augmentation | None
    colour: ColourJitter | None
    views: int
    tubelet: int
    patch: int
    fields: Fields


def trajectory_loader(location: str | Path, **settings: Unpack[TrajectorySettings]) -> Loader[TrajectoryBatch]:
    """The loader of masked clips of walks from a folder of shards (one split, such as
    `data/shards/vizdoom-walks/train`).

    settings: the fields of `TrajectoryData` (clip, ahead_s, depth, mask, ...), and the `Options` of all loaders
    (batch_size, seed, shuffle, workers, ...). batch_size is in samples per rank.

    Errors: ValueError for impossible settings, ShardError if the folder holds no finished split.
    """
    return TrajectoryData.opened(location, settings)
