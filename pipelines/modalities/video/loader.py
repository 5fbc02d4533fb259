"""The loader of masked video clips."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...augment import Augmentation
from ...augment.colour import ColourJitter
from ...flow import FlowChoice
from ...masks import Mask
from ...stream.loader import Loader
from ..backend import Backend
from ..fields import Fields
from ..split import Options
from .batch import VideoBatch
from .clip import VideoClip
from .data import VideoData
from .yuv import Output


class VideoSettings(Options, total=False):
    """The fields of `VideoData`, with its defaults, and the options of all loaders."""

    clip: VideoClip
    mask: Mask | None
    augment: Augmentation | None
    colour: ColourJitter | None
    flow: FlowChoice
    views: int
    component: str | None
    tubelet: int
    patch: int
    fields: Fields
    backend: Backend
    output: Output
    decoders: str | None


def video_loader(location: str | Path, **settings: Unpack[VideoSettings]) -> Loader[VideoBatch]:
    """The loader of masked clips from a folder of shards (one split, such as `data/shards/k400/train`).

    settings: the fields of `VideoData` (clip, mask, augment, flow, views, ...), and the `Options` of all loaders
    (batch_size, seed, shuffle, workers, ...). batch_size is in samples per rank.

    Errors: ValueError for impossible settings, ShardError if the folder holds no finished split.
    """
    return VideoData.opened(location, settings)
