"""The summary of a split agrees with its samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskstream.shards.errors import ShardError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.inspect import inspect
from maskstream.shards.format.sample import DatasetInfo, Reject, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.member import Member


def test_a_video_split(samples: list[Sample], split: Path) -> None:
    summary = inspect(split)
    assert json.loads(json.dumps(summary)) == summary
    lengths = [sample.members["mp4"].facts["n_frames"] for sample in samples]
    size = sum(len(sample.members["mp4"].data) for sample in samples)
    video = summary["video"]["mp4"]
    assert video["hours"] == pytest.approx(sum(lengths) / 8 / 3600)
    assert video["bytes_per_second"] == pytest.approx(size / (sum(lengths) / 8))
    assert (video["codec"], video["resolution"], video["fps"]) == ({"h264": 8}, {"64x48": 8}, {"8": 8})
    assert video["frames_per_video"] == {"mean": sum(lengths) / 8, "min": 6, "max": 13}
    n_gops = sum(-(-length // 4) for length in lengths)
    assert video["frames_per_gop"] == {"mean": pytest.approx(sum(lengths) / n_gops), "min": 1, "max": 4}
    assert summary["samples_per_label"] == {"a": 4, "b": 4}
    assert summary["rejects_per_stage"] == {"decode": 1, "probe": 1}
    assert summary["bytes_per_component"]["mp4"] == size
    assert summary["counts"]["samples"] == 8


def test_a_split_without_video(tmp_path: Path) -> None:
    info = DatasetInfo(dataset="toy", split="test", modality="text", profile="plain")
    many = [
        Sample(key=f"k{i}", members={"txt": Member(kind="text", data=b"x")}, source="x", label=min(i, 11) - 1)
        for i in range(14)
    ]
    rejects = [Reject(source=f"{i}", stage="read", reason="x") for i in range(3)]
    finish_split(tmp_path, info, [write_shard(tmp_path / "toy-000000.tar", many)], rejects)
    summary = inspect(tmp_path)
    assert summary["video"] == {}
    assert next(iter(summary["samples_per_label"].items())) == ("10", 3)
    assert len(summary["samples_per_label"]) == 11
    assert summary["samples_per_label"]["others"] == 2
    (tmp_path / "one").mkdir()
    many = [Sample(key="k", members={"txt": Member(kind="text", data=b"x")}, source="x")]
    finish_split(tmp_path / "one", info, [write_shard(tmp_path / "one/toy-000000.tar", many)], [])
    assert inspect(tmp_path / "one")["samples_per_label"] == {"no label": 1}
    assert summary["rejects_per_stage"] == {"read": 3}
    (tmp_path / "rejects.parquet").unlink()
    with pytest.raises(ShardError, match=r"but no rejects.parquet"):
        inspect(tmp_path)
