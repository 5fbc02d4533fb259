"""Shards: plain WebDataset tars, and a manifest with everything that a loader must know.

1. `write_shard` writes each `Sample` (key, label and members) into a tar.
2. Each finished shard is a `ShardRecord`. `Records` keeps them on disk, so a killed run can continue.
3. `finish_split` turns the records into the parts of the manifest, rejects.parquet and, last, dataset.json.
4. `Manifest.load` reads the split as arrays, which give byte ranges without opening a tar.
5. `verify` reads every byte and reports damage; `inspect` summarises a split without opening a shard.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import DatasetError, MaskstreamError, OutageError, ResumeError, SampleError, ShardError, StoreError
    from .format.component import Component, component_of
    from .format.dataset import finish_split, read_dataset_json
    from .format.inspect import inspect
    from .format.manifest import Manifest
    from .format.records import Placed, Records, Row, ShardRecord
    from .format.sample import DatasetInfo, Reject, Sample
    from .format.verify import VerifyReport, verify
    from .format.writer import write_shard
    from .media.video_index import VideoIndex
    from .members.arrays import array_member
    from .members.kinds import KINDS
    from .members.member import Kind, Member
    from .members.sound import sound_member
    from .members.text import json_member
    from .members.video import video_member
    from .stores.base import Range, Store
    from .stores.local_files import publishing, remove_leftovers
else:
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "errors": "DatasetError MaskstreamError OutageError ResumeError SampleError ShardError StoreError",
            "format.component": "Component component_of",
            "format.dataset": "finish_split read_dataset_json",
            "format.inspect": "inspect",
            "format.manifest": "Manifest",
            "format.records": "Placed Records Row ShardRecord",
            "format.sample": "DatasetInfo Reject Sample",
            "format.verify": "VerifyReport verify",
            "format.writer": "write_shard",
            "media.video_index": "VideoIndex",
            "members.arrays": "array_member",
            "members.kinds": "KINDS",
            "members.member": "Kind Member",
            "members.sound": "sound_member",
            "members.text": "json_member",
            "members.video": "video_member",
            "stores.base": "Range Store",
            "stores.local_files": "publishing remove_leftovers",
        },
    )

__all__ = [
    "KINDS",
    "Component",
    "DatasetError",
    "DatasetInfo",
    "Kind",
    "Manifest",
    "MaskstreamError",
    "Member",
    "OutageError",
    "Placed",
    "Range",
    "Records",
    "Reject",
    "ResumeError",
    "Row",
    "Sample",
    "SampleError",
    "ShardError",
    "ShardRecord",
    "Store",
    "StoreError",
    "VerifyReport",
    "VideoIndex",
    "array_member",
    "component_of",
    "finish_split",
    "inspect",
    "json_member",
    "publishing",
    "read_dataset_json",
    "remove_leftovers",
    "sound_member",
    "verify",
    "video_member",
    "write_shard",
]
