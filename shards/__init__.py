"""Shards: plain WebDataset tars, and beside them everything a loader must know.

1. A `Sample` (key, components, label, and for video where its frames lie) goes into a tar with `write_shard`.
2. Each finished shard is a `ShardRecord`; a `Journal` keeps them on disk, so a killed run goes on where it was.
3. `finish_split` turns the records into manifest.parquet, rejects.parquet and, last of all, dataset.json.
4. `Manifest.load` gives the split back as arrays: any reader takes byte ranges from them without opening a tar.
5. `verify` reads every byte and says what is damaged; `inspect` says what a split holds without reading any.
"""

from .errors import DatasetError, MaskstreamError, ResumeError, SampleError, ShardError, StoreError
from .format.dataset import finish_split, read_dataset_json
from .format.inspect import inspect
from .format.journal import Journal
from .format.manifest import Component, Manifest, VideoColumns
from .format.record import Row, ShardRecord
from .format.sample import DatasetInfo, Reject, Sample, VideoIndex
from .format.verify import VerifyReport, verify
from .format.writer import write_shard
from .stores.publish import publishing, remove_leftovers

__all__ = [
    "Component",
    "DatasetError",
    "DatasetInfo",
    "Journal",
    "Manifest",
    "MaskstreamError",
    "Reject",
    "ResumeError",
    "Row",
    "Sample",
    "SampleError",
    "ShardError",
    "ShardRecord",
    "StoreError",
    "VerifyReport",
    "VideoColumns",
    "VideoIndex",
    "finish_split",
    "inspect",
    "publishing",
    "read_dataset_json",
    "remove_leftovers",
    "verify",
    "write_shard",
]
