"""Turns raw media into shards: datasets, encoders, and the job that runs them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .datasets import DATASETS
    from .encode.limits import Limits
    from .encode.video.profile import PROFILES, VideoProfile
    from .executors.base import Executor
    from .executors.local import LocalExecutor
    from .executors.ray import RayExecutor
    from .foreign import IndexReport, index_tars
    from .job.shards import JobReport, SplitReport, make_shards
else:
    _HOMES = {
        "DATASETS": "datasets",
        "Limits": "encode.limits",
        "PROFILES": "encode.video.profile",
        "VideoProfile": "encode.video.profile",
        "Executor": "executors.base",
        "LocalExecutor": "executors.local",
        "RayExecutor": "executors.ray",
        "IndexReport": "foreign",
        "index_tars": "foreign",
        "JobReport": "job.shards",
        "SplitReport": "job.shards",
        "make_shards": "job.shards",
    }

    def __getattr__(name):
        """Imports what a name stands for when it is asked for: worker processes import this package too, and need
        neither the datasets nor all encoders.
        """
        if name not in _HOMES:
            raise AttributeError(f"module {__name__} has no attribute {name}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "DATASETS",
    "PROFILES",
    "Executor",
    "IndexReport",
    "JobReport",
    "Limits",
    "LocalExecutor",
    "RayExecutor",
    "SplitReport",
    "VideoProfile",
    "index_tars",
    "make_shards",
]
