"""Parts with different components, facts, words and lists become columns of the whole split."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.shards.errors import ShardError
from maskstream.shards.format import part_writer
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.index_cache import IndexFile, IndexWriter, Spool
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.member import Member

INFO = DatasetInfo(dataset="toy", split="train", modality="audio", profile="flac")
ARRAYS = st.lists(
    st.tuples(
        st.sampled_from([np.int8, np.int16, np.int32, np.int64, np.float64]),
        st.lists(st.integers(-100, 100), max_size=5),
    ),
    max_size=6,
)


def mapped(writer: IndexWriter, stream: io.BytesIO, tmp_path: Path) -> IndexFile:
    writer.finish({"key": "x"})
    path = tmp_path / "x.index"
    path.write_bytes(stream.getvalue())
    return IndexFile.at(path)


@given(parts=ARRAYS)
@settings(max_examples=60, deadline=None)
def test_spools_widen(parts: list[tuple[type, list[int]]], tmp_path_factory: pytest.TempPathFactory) -> None:
    spool = Spool(io.BytesIO, np.int8)
    for dtype, values in parts:
        spool.append(np.array(values, dtype))
    stream = io.BytesIO()
    writer = IndexWriter(stream)
    writer.put("x", spool.dtype, spool.chunks())
    found = mapped(writer, stream, tmp_path_factory.getbasetemp()).array("x")
    wanted = np.concatenate([np.empty(0, np.int8), *(np.array(values, dtype) for dtype, values in parts)])
    np.testing.assert_array_equal(found, wanted, strict=True)
    assert found.dtype == spool.dtype
    assert not found.flags.writeable


def described(**columns: object) -> Member:
    facts = {name: value for name, value in columns.items() if isinstance(value, int | float)}
    words = {name: value for name, value in columns.items() if isinstance(value, str)}
    lists = {name: np.array(value) for name, value in columns.items() if isinstance(value, list)}
    return Member(kind="own", data=b"x", facts=facts, words=words, lists=lists)


def written(folder: Path, groups: list[dict[str, dict[str, Member]]]) -> Manifest:
    folder.mkdir(exist_ok=True)
    records = []
    for number, group in enumerate(groups):
        samples = [Sample(key=key, members=members, source=f"{key}.raw") for key, members in group.items()]
        records.append(write_shard(folder / f"toy-{number:06d}.tar", samples))
    finish_split(folder, INFO, records, [])
    return Manifest.load(folder)


def test_parts_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [
        {"a": {"x": described(n=1, word="one", values=[1, 2])}, "b": {"x": described(n=2)}},
        {"c": {"y": described(n=5)}},
        {"d": {"x": described(n=0.5, word="two", values=[70_000], more=[3])}, "e": {"x": described(word="one")}},
    ]
    whole = written(tmp_path / "whole", groups)
    monkeypatch.setattr(part_writer, "PART_SAMPLES", 1)
    parts = written(tmp_path / "parts", groups)
    assert [len(one.info["parts"]) for one in (whole, parts)] == [1, 3]
    assert whole.fingerprint == parts.fingerprint
    for one in (whole, parts):
        x, y = one.component("x"), one.component("y")
        assert x.present.tolist() == [True, True, False, True, True]
        assert y.present.tolist() == [False, False, True, False, False]
        assert x.facts["n"].tolist() == [1, 2, 0, 0.5, 0]
        assert x.facts["n"].dtype == np.float64
        assert [x.words["word"].names[code] if code >= 0 else None for code in x.words["word"].code] == [
            *("one", None, None, "two", "one")
        ]
        assert [x.lists["values"][i].tolist() for i in range(5)] == [[1, 2], [], [], [70_000], []]
        assert [x.lists["more"][i].tolist() for i in range(5)] == [[], [], [], [3], []]
        assert x.lists["values"].values.dtype == np.int32
        assert x.digest.any(axis=1).tolist() == x.present.tolist()
        assert one.keys(range(5)) == [*"abcde"]
        assert one.sources().to_pylist() == [f"{key}.raw" for key in "abcde"]
        assert one.shard.tolist() == [0, 0, 1, 2, 2]
    assert np.shares_memory(parts.component("y").offset, parts.component("y").offset)


def test_lists_of_equal_lengths_share_their_starts(tmp_path: Path) -> None:
    member = described(first=[1, 2], second=[3, 4], third=[5])
    x = written(tmp_path / "split", [{"a": {"x": member}, "b": {"x": member}}]).component("x")
    assert np.shares_memory(x.lists["first"].start, x.lists["second"].start)
    assert not np.shares_memory(x.lists["first"].start, x.lists["third"].start)


def test_contradictions_between_parts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writer, "PART_SAMPLES", 1)
    other = Member(kind="text", data=b"x")
    with pytest.raises(ShardError, match="component 'x' is text, but own in an earlier part"):
        written(tmp_path / "kinds", [{"a": {"x": described()}}, {"b": {"x": other}}])
    with pytest.raises(ShardError, match=r"x\.n has a different type than in an earlier part"):
        written(tmp_path / "types", [{"a": {"x": described(n=1)}}, {"b": {"x": described(n="word")}}])


def test_parts_hold_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writer, "PART_SAMPLES", 3)
    sizes = (1, 2, 2, 4, 1, 1)
    groups = [{f"{shard}-{i}": {"x": described()} for i in range(size)} for shard, size in enumerate(sizes)]
    opened = written(tmp_path / "split", groups)
    assert [(part["samples"], part["shards"]) for part in opened.info["parts"]] == [(3, 2), (2, 1), (4, 1), (2, 2)]
    assert opened.shard_samples.tolist() == [1, 2, 2, 4, 1, 1]
    assert os.path.getsize(tmp_path / "split/dataset.json") < 3000


def test_parts_of_an_earlier_manifest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [{"a": {"x": described()}}, {"b": {"x": described()}}]
    with monkeypatch.context() as patch:
        patch.setattr(part_writer, "PART_SAMPLES", 1)
        written(tmp_path / "split", groups)
    (tmp_path / "split/manifest.parquet").write_bytes(b"of an earlier format")
    written(tmp_path / "split", groups)
    assert [path.name for path in (tmp_path / "split").glob("manifest*")] == ["manifest-000000.parquet"]


def test_the_temporary_files_do_not_grow_with_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writer, "PART_SAMPLES", 1)
    init, made = Spool.__init__, list[Spool]()

    def counting(spool: Spool, *given: Any) -> None:
        made.append(spool)
        init(spool, *given)

    monkeypatch.setattr(Spool, "__init__", counting)
    counts = []
    for parts in (1, 5):
        made.clear()
        groups = [{f"{n}": {"x": described(n=n, word="w", values=[n])}} for n in range(parts)]
        written(tmp_path / f"{parts}", groups)
        counts.append(len(made))
    assert counts[0] == counts[1]
