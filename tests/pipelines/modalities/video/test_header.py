"""A header that the manifest has is not read: the clip is one range, and the same clip. And tables are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskstream.pipelines import VideoClip, video_loader
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import SampleError
from maskstream.shards.format.columns import SHARED_BY
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.member import Member

CLIP = VideoClip(frames=4, stride=4, size=48)
INFO = DatasetInfo(dataset="h", split="train", modality="video", profile="train")
SETTINGS = {"clip": CLIP, "mask": None, "batch_size": 4, "threads": 1, "device": "cpu", "seed": 3}


def without_headers(split: Path, folder: Path) -> Path:
    """A copy of a split as earlier releases wrote it."""
    manifest, samples = Manifest.load(split), []
    for i in range(len(manifest)):
        member = manifest.components["mp4"].described(i, manifest.store.read(*manifest.member(i, "mp4")))
        plain = Member(
            kind="video",
            data=member.data,
            facts=member.facts,
            words={"codec": member.words["codec"]},
            lists=member.lists,
        )
        samples.append(Sample(key=manifest.key(i), members={"mp4": plain}, source="", label=int(manifest.label[i])))
    finish_split(folder, INFO, [write_shard(folder / "h-000000.tar", samples)], [])
    return folder


def test_the_clips_are_the_same_in_half_the_ranges(uneven: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(uneven)
    assert len(manifest) >= 4 * SHARED_BY
    assert all(manifest.video(i).header is not None for i in range(len(manifest)))
    old = without_headers(uneven, tmp_path)
    assert Manifest.load(old).video(0).header is None
    known, read = (video_loader(path, shuffle=False, **SETTINGS) for path in (uneven, old))
    for ours, theirs in zip(known, read, strict=True):
        assert ours.key == theirs.key
        assert torch.equal(ours.video, theirs.video)
    headers = sum(manifest.video(i).header_size for i in range(len(manifest)))
    assert known.stats()["read_bytes"] == read.stats()["read_bytes"] - headers


def test_a_table_is_checked_once_and_a_wrong_one_each_time(uneven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split.open(Manifest.load(uneven, cached=False), "video", device="cpu", threads=1, seed=0)
    sampler, component = VideoData(clip=CLIP, mask=None).sampler(split), split.manifest.components["mp4"]
    first_frames = component.lists["gop_first_frame"]
    wrong = first_frames.values.copy()
    wrong[first_frames.start[1]] = 1  # that of sample 1
    monkeypatch.setitem(component.lists, "gop_first_frame", replace(first_frames, values=wrong))
    for epoch in range(2):
        sampler.request(Wanted.of([0], epoch))
        with pytest.raises(SampleError, match="do not ascend from 0"):
            sampler.request(Wanted.of([0, 1], epoch))
    assert component.checked[:3].tolist() == [True, False, False]
