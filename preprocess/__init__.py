"""Turns raw media into shards: datasets, encoders, and the job that runs them."""

from .datasets import DATASETS
from .encode.limits import Limits
from .encode.video.profile import PROFILES, VideoProfile
from .executors.base import Executor
from .executors.local import LocalExecutor
from .executors.ray import RayExecutor
from .foreign import IndexReport, index_tars
from .job.shards import JobReport, SplitReport, make_shards

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
