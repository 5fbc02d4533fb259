"""Records bring a killed run back to where it was, and refuse to mix settings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maskstream.preprocess.job.task import WrittenShard
from maskstream.preprocess.raw.file_state import FileState
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.records import JOB, RECORDS, Records
from maskstream.shards.format.sample import Reject, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.stores.output import Sizes

SETTINGS = {"profile": "train", "short_side": 256}
REJECT = Reject(source="x.mp4", stage="decode", reason="no frames")


@dataclass(frozen=True)
class Named:
    """A task, as far as records know one."""

    name: str


@dataclass(frozen=True)
class Number:
    """A record that stands where its file does, of two parts."""

    file: str
    number: int

    def to_parts(self) -> list[dict[str, Any]]:
        return [{"file": self.file}, {"number": self.number}]

    @classmethod
    def from_parts(cls, parts: Sequence[dict[str, Any]]) -> Number:
        return cls(**parts[0], **parts[1])

    def stands(self, sizes: Sizes) -> bool:
        return sizes.size(self.file) is not None


def records_of(folder: Path, settings: dict[str, Any] = SETTINGS) -> Records[Number]:
    records = Records(folder, Number)
    records.begin(settings)
    return records


def test_a_later_run_finds_what_an_earlier_one_recorded(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    records = records_of(tmp_path)
    assert records.stands(Named("train/a.tar")) is None
    assert records.first(Named("train/a.tar")) is None
    records.record(Named("train/a.tar"), Number("a.tar", 1))
    records.record(Named("train/a.tar"), Number("a.tar", 2))
    records = records_of(tmp_path, dict(reversed(SETTINGS.items())))
    assert records.stands(Named("elsewhere/a.tar")) == Number("a.tar", 2)
    assert records.first(Named("a.tar")) == {"file": "a.tar"}
    assert records.stands(Named("train/b.tar")) is None
    (tmp_path / "a.tar").unlink()
    assert records.stands(Named("train/a.tar")) is None


def test_a_record_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom maskstream.shards import Records\n"
        "from maskstream.preprocess.job.task import WrittenShard\n"
        "records = Records(Path(sys.argv[1]), WrittenShard)\nrecords.begin({'profile': 'train'})\n"
        "records.record(type('Task', (), {'name': 'a.tar'}), WrittenShard(shard=None))\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == -9
    records = Records(tmp_path, WrittenShard)
    records.begin({"profile": "train"})
    assert records.stands(Named("a.tar")) == WrittenShard(shard=None)


def test_a_shard_stands_with_all_its_files(tmp_path: Path, samples: list[Sample]) -> None:
    records = Records(tmp_path, WrittenShard)
    records.begin(SETTINGS)
    shard = write_shard(tmp_path / "toy-000000.tar", samples)
    state = FileState(size_bytes=3, mtime_ns=10**18 + 1, xxh3_64="0" * 16)
    written = WrittenShard(shard=shard, rejects=(REJECT,), sources=((state,), (state, state)))
    records.record(Named(shard.name), written)
    found = records.stands(Named(shard.name))
    assert found is not None
    assert found.to_parts() == written.to_parts()
    assert (found.sources, found.rejects) == (written.sources, written.rejects)
    assert records.first(Named(shard.name)) == written.to_parts()[0]
    for suffix in (".tar", ".idx", ".sums"):
        path = tmp_path / f"toy-000000{suffix}"
        data = path.read_bytes()
        path.unlink()
        assert records.stands(Named(shard.name)) is None
        path.write_bytes(data)
    assert records.stands(Named(shard.name)) is not None
    (tmp_path / "toy-000000.tar").write_bytes(b"shorter")
    assert records.stands(Named(shard.name)) is None


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    records_of(tmp_path)
    with pytest.raises(ResumeError, match=r"\(short_side: saved 256, here 128\); use its settings"):
        records_of(tmp_path, SETTINGS | {"short_side": 128})
    records_of(tmp_path)


def test_the_job_says_whether_the_split_was_verified(tmp_path: Path) -> None:
    records = Records(tmp_path, Number)
    assert records.job() is None
    for _ in range(2):
        records.begin(SETTINGS)
        job = records.job()
        assert job is not None
        assert (job.settings, job.verified) == (SETTINGS, False)
        records.verified()
        job = records.job()
        assert job is not None
        assert job.verified


def test_a_damaged_job_says_what_to_do(tmp_path: Path) -> None:
    records_of(tmp_path)
    for damage in (b"", b"not json", b"[]", b'{"verified": true}', b"\xff\xfe"):
        (tmp_path / RECORDS / JOB).write_bytes(damage)
        with pytest.raises(ResumeError, match=r"job\.json is damaged.*delete .*\.records to write every shard again"):
            records_of(tmp_path)


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    """Every single flipped bit, and every cut."""
    (tmp_path / "a.tar").touch()
    records = records_of(tmp_path)
    records.record(Named("a.tar"), Number("a.tar", 1))
    path = tmp_path / RECORDS / "a.tar.record"
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert records.stands(Named("a.tar")) is None
        assert records.first(Named("a.tar")) in (None, {"file": "a.tar"})
    for size in range(len(good)):
        path.write_bytes(good[:size])
        assert records.stands(Named("a.tar")) is None
    path.write_bytes(good)
    assert records.stands(Named("a.tar")) == Number("a.tar", 1)


def test_records_without_a_job_do_not_stand(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    records_of(tmp_path).record(Named("a.tar"), Number("a.tar", 1))
    (tmp_path / RECORDS / JOB).unlink()
    assert records_of(tmp_path, {"other": 1}).stands(Named("a.tar")) is None


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    records = records_of(tmp_path / "new")
    records.record(Named("a.tar"), Number("a.tar", 1))
    (tmp_path / "new" / RECORDS / ".a.tar.record.0a0b0c0d.tmp").touch()
    records.discard()
    assert list((tmp_path / "new").iterdir()) == []
