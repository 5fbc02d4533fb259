"""Sums of samples become sums of the split."""

import json
import math

from maskstream.shards.format.dataset import finish_split, read_dataset_json
from maskstream.shards.format.records import ShardRecord
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member


def sample(i):
    return Sample(key=f"s{i}", members={"json": json_member({})}, source=f"s{i}", sums={"field": [1.0, 0.1 * i]})


def test_they_are_added_whatever_their_order(tmp_path):
    shards = [write_shard(tmp_path / f"a-{i:06d}.tar", map(sample, range(3 * i, 3 * i + 3))) for i in range(3)]
    through_journal = [ShardRecord.from_json(json.loads(json.dumps(shard.to_json()))) for shard in reversed(shards)]
    finish_split(
        tmp_path, DatasetInfo(dataset="a", split="train", modality="mesh", profile="mesh"), through_journal, []
    )
    assert read_dataset_json(tmp_path)["sums"] == {"field": [9.0, math.fsum(0.1 * i for i in range(9))]}
