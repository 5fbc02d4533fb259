"""Long words, such as the headers of videos: once in a record, and in the manifest where samples share them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from maskstream.shards.errors import DataError, SampleError
from maskstream.shards.format import columns
from maskstream.shards.format.columns import SHARED_BY
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import ShardRecord
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.video import find_gop_table_problems, video_member

from ..conftest import INFO, fragmented_video


def sample(n: int, width: int = 64, **changes: object) -> Sample:
    """A video with its header in the index."""
    data, index = fragmented_video(6, seed=n, width=width)
    known = dataclasses.replace(index, **{"header": data[: index.header_size], **changes})
    return Sample(key=f"s{n}", members={"mp4": video_member(data, known)}, source=f"{n}.avi")


def written(folder: Path, *samples: Sample) -> ShardRecord:
    record = write_shard(folder / "t-000000.tar", samples)
    finish_split(folder, INFO, [record], [])
    return record


def test_a_header_that_samples_share_is_in_the_manifest_and_others_are_not(tmp_path: Path) -> None:
    shared = [sample(n) for n in range(SHARED_BY)]
    rare = [sample(n, width=80) for n in range(SHARED_BY, 2 * SHARED_BY - 1)]
    written(tmp_path, *shared, *rare)
    manifest = Manifest.load(tmp_path)
    headers = [manifest.video(i).header for i in range(len(manifest))]
    assert headers[SHARED_BY:] == [None] * len(rare)
    assert {*headers[:SHARED_BY]} == {shared[0].members["mp4"].data[: manifest.video(0).header_size]}
    assert manifest.components["mp4"].words["header"].code.tolist() == [0] * SHARED_BY + [-1] * len(rare)
    assert verify(tmp_path, decode=True).problems == []


def test_a_part_keeps_the_words_that_most_samples_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_SHARED", 1)
    few, many = ([sample(n, width=width) for n in numbers] for numbers, width in ((range(4), 64), (range(4, 9), 80)))
    written(tmp_path, *few, *many)
    manifest = Manifest.load(tmp_path)
    assert [manifest.video(i).header is not None for i in range(9)] == [False] * 4 + [True] * 5


def test_a_column_that_nobody_shares_is_left_out(tmp_path: Path) -> None:
    written(tmp_path, sample(0), sample(1, width=80))
    assert {*Manifest.load(tmp_path).components["mp4"].words} == {"codec"}


def test_a_record_holds_a_long_word_once(tmp_path: Path) -> None:
    record = written(tmp_path, *(sample(n) for n in range(5)), sample(5, width=80))
    data = json.loads(json.dumps(record.to_json()))
    assert len(data["long_words"]) == 2
    assert [row["members"]["mp4"]["words"]["header"] for row in data["rows"]] == [0, 0, 0, 0, 0, 1]
    again = ShardRecord.from_json(data)
    assert [row.members["mp4"].words for row in again.rows] == [row.members["mp4"].words for row in record.rows]
    assert again.to_json() == record.to_json()
    assert "long_words" not in dataclasses.replace(record, rows=()).to_json()


def test_a_header_that_is_not_the_members_is_found(tmp_path: Path) -> None:
    member = sample(0).members["mp4"]
    size = int(member.facts["header_size"])
    other = bytes([*member.data[: size - 1], member.data[size - 1] ^ 1])
    written(tmp_path, *(sample(n, header=other) for n in range(SHARED_BY)))
    found = verify(tmp_path).problems
    assert len(found) == SHARED_BY
    assert all(
        one.endswith("component 'mp4': its header in the manifest differs from the one in the member") for one in found
    )


@pytest.mark.parametrize("word", ["!" * 100, "A" * 100])
def test_a_word_that_is_no_header_of_this_size_makes_a_bad_sample(tmp_path: Path, word: str) -> None:
    bad = []
    for n in range(SHARED_BY):
        member = sample(n).members["mp4"]
        words = {**member.words, "header": word}
        bad.append(Sample(key=f"s{n}", members={"mp4": dataclasses.replace(member, words=words)}, source="x"))
    written(tmp_path, *bad)
    assert len(verify(tmp_path).problems) == SHARED_BY
    manifest = Manifest.load(tmp_path)
    with pytest.raises(SampleError), manifest.reading(0, "mp4"):
        _refuse(manifest)


def _refuse(manifest: Manifest) -> None:
    """Raise what the loader meets when it asks for the first video."""
    index = manifest.video(0, "mp4")
    if problem := next(find_gop_table_problems(index, manifest.member(0, "mp4").size), None):
        raise DataError(problem)
