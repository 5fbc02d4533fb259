"""Turns raw media into shards: datasets, encoders, and the job that runs them."""

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
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "datasets": "DATASETS",
            "encode.limits": "Limits",
            "encode.video.profile": "PROFILES VideoProfile",
            "executors.base": "Executor",
            "executors.local": "LocalExecutor",
            "executors.ray": "RayExecutor",
            "foreign": "IndexReport index_tars",
            "job.shards": "JobReport SplitReport make_shards",
        },
    )

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
