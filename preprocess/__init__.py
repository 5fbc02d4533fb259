"""From raw media to shards: datasets, encoders, and the job that runs them."""

from .datasets import DATASETS
from .encode.video.profile import PROFILES, VideoProfile
from .foreign import IndexReport, index_tars
from .job import JobReport, SplitReport, make_shards

__all__ = [
    "DATASETS",
    "PROFILES",
    "IndexReport",
    "JobReport",
    "SplitReport",
    "VideoProfile",
    "index_tars",
    "make_shards",
]
