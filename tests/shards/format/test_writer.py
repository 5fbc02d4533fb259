"""A shard is a plain USTAR tar, the same bytes every time, whole or not there."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.shards.errors import ShardError
from maskstream.shards.format import writer
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.writer import ShardRecord, write_shard
from maskstream.shards.members.member import Member
from maskstream.shards.stores.local_files import publishing, remove_leftovers


def plain(parts: dict[str, bytes]) -> dict[str, Member]:
    """Members of which nothing is known."""
    return {name: Member(kind="bytes", data=data) for name, data in parts.items()}


SEGMENT = st.text("abcXYZ019_-", min_size=1, max_size=12)
KEYS = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)
ENDING = st.lists(st.text("abz09", min_size=1, max_size=4), min_size=1, max_size=4).map(".".join)
COMPONENTS = st.dictionaries(ENDING, st.binary(max_size=1500), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(contents=st.dictionaries(KEYS, COMPONENTS, min_size=1, max_size=5))
def test_tarfile_finds_what_the_record_says(
    contents: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "any-000000.tar"
    record = write_shard(path, [Sample(key=key, members=plain(parts), source=key) for key, parts in contents.items()])
    with tarfile.open(path, "r:") as tar:
        found = {member.name: (member.offset_data, member.size) for member in tar}
        said = {f"{row.key}.{name}": span for row in record.rows for name, span in row.spans.items()}
        assert list(found.items()) == list(said.items())
    data = path.read_bytes()
    assert (record.name, record.size_bytes) == (path.name, len(data))
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    for row in record.rows:
        for name, placed in row.members.items():
            assert data[placed.offset : placed.offset + placed.size] == contents[row.key][name]
            assert placed.digest == xxhash.xxh3_128_digest(contents[row.key][name])


def test_headers_are_plain_ustar(tmp_path: Path, samples: list[Sample]) -> None:
    path = tmp_path / "toy-000000.tar"
    write_shard(path, samples)
    with tarfile.open(path, "r:") as tar:
        members = tar.getmembers()
        assert tar.pax_headers == {}
    expected = [f"{sample.key}.{name}" for sample in samples for name in ("mp4", "json")]
    assert [member.name for member in members] == expected
    data = path.read_bytes()
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.type) == (0o644, tarfile.REGTYPE)
        assert data[member.offset + 257 : member.offset + 265] == b"ustar\x0000"
        assert member.offset_data == member.offset + 512


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, samples: list[Sample]) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one, two = (write_shard(tmp_path / folder / "toy-000000.tar", iter(samples)) for folder in ("one", "two"))
    assert one.to_json() == two.to_json()
    for name in ("toy-000000.tar", "toy-000000.idx"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_tar_is_what_webdataset_writes(tmp_path: Path, samples: list[Sample]) -> None:
    from webdataset.writer import TarWriter

    write_shard(tmp_path / "toy-000000.tar", samples)
    with TarWriter(
        str(tmp_path / "theirs.tar"), encoder=False, user="", group="", mode=0o644, mtime=0
    ) as tar:  # it sorts the components of a sample, so they are written one by one
        for sample in samples:
            for name, member in sample.members.items():
                tar.write({"__key__": sample.key, name: member.data})
    assert (tmp_path / "toy-000000.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_idx_is_what_wds2idx_writes(tmp_path: Path, samples: list[Sample]) -> None:
    pytest.importorskip("wds2idx")  # of DALI
    path = tmp_path / "toy-000000.tar"
    write_shard(path, samples)
    script = "import sys, wds2idx\nwith wds2idx.IndexCreator(*sys.argv[1:3], verbose=False) as ic: ic.create_index()"
    subprocess.run([sys.executable, "-c", script, path, tmp_path / "theirs.idx"], check=True)
    assert path.with_suffix(".idx").read_bytes() == (tmp_path / "theirs.idx").read_bytes()


def test_record_survives_json_and_pickle(tmp_path: Path, samples: list[Sample]) -> None:
    record = write_shard(tmp_path / "toy-000000.tar", samples)
    for copy in (ShardRecord.from_json(record.to_json()), pickle.loads(pickle.dumps(record))):
        assert copy.to_json() == record.to_json()
        assert [row.spans for row in copy.rows] == [row.spans for row in record.rows]
        np.testing.assert_array_equal(
            copy.rows[1].members["mp4"].lists["gop_size"], record.rows[1].members["mp4"].lists["gop_size"]
        )


def test_a_crash_publishes_nothing(tmp_path: Path, samples: list[Sample]) -> None:
    def breaking() -> Iterator[Sample]:
        yield from samples[:2]
        raise RuntimeError("encoder died")

    with pytest.raises(RuntimeError, match="encoder died"):
        write_shard(tmp_path / "toy-000000.tar", breaking())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_the_old_file_and_a_leftover(tmp_path: Path) -> None:
    path = tmp_path / "toy-000000.tar"
    path.write_bytes(b"old")
    script = (
        "import os, pathlib, sys\nfrom maskstream.shards.stores.local_files import publishing\n"
        "with publishing(pathlib.Path(sys.argv[1])) as f:\n f.write(b'new'); f.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    assert remove_leftovers(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [path]
    with publishing(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"


def test_what_a_shard_refuses(tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy-000000.tar"
    with pytest.raises(ShardError, match=r"toy-000000.tar: key 'toy/0001' occurs twice, from '1.avi' and from '1.avi'"):
        write_shard(path, [samples[0], samples[1], samples[1]])
    with pytest.raises(ShardError, match="no samples"):
        write_shard(path, [])
    with pytest.raises(ShardError, match="'/a' has an empty part"):
        write_shard(path, [Sample(key="/a", members=plain({"json": b"{}"}), source="a")])
    with pytest.raises(ValueError, match=r"must end in .tar"):
        write_shard(tmp_path / "toy.tgz", samples)
    monkeypatch.setattr(writer, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(ShardError, match=r"'mp4' of 'toy/0000' has .* limit of a USTAR member is 100"):
        write_shard(path, samples)
    assert list(tmp_path.iterdir()) == []
