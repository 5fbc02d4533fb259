"""From raw media to shards: datasets, encoders, and the job that runs them."""

from .command import shard_command
from .datasets import DATASETS
from .encode.profile import PROFILES, VideoProfile
from .job import JobReport, SplitReport, make_shards

__all__ = ["DATASETS", "PROFILES", "JobReport", "SplitReport", "VideoProfile", "make_shards", "shard_command"]
