"""The journal brings a killed run back to where it was, and refuses to mix settings."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maskstream.preprocess.shard_task import WrittenShard
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.journal import JOURNAL, Journal
from maskstream.shards.format.sample import Reject, Sample
from maskstream.shards.format.writer import write_shard

SETTINGS = {"profile": "train", "short_side": 256}
REJECT = Reject(source="x.mp4", stage="decode", reason="no frames")


@dataclass(frozen=True)
class Named:
    """A task, as far as the journal knows one."""

    name: str


@dataclass(frozen=True)
class Number:
    """A record that stands where its file does."""

    file: str
    number: int

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "number": self.number}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Number:
        return cls(**data)

    def stands(self, folder: Path) -> bool:
        return (folder / self.file).is_file()


def journal_of(folder: Path, settings: dict[str, Any] = SETTINGS) -> Journal[Number]:
    return Journal(folder, settings, Number)


def test_a_later_run_finds_what_an_earlier_one_recorded(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    with journal_of(tmp_path) as journal:
        assert journal.stands(Named("train/a.tar")) is None
        journal.record(Named("train/a.tar"), Number("a.tar", 1))
        journal.record(Named("train/a.tar"), Number("a.tar", 2))
    with journal_of(tmp_path, dict(reversed(SETTINGS.items()))) as journal:
        assert journal.stands(Named("elsewhere/a.tar")) == Number("a.tar", 2)
        assert journal.stands(Named("train/b.tar")) is None
        (tmp_path / "a.tar").unlink()
        assert journal.stands(Named("train/a.tar")) is None


def test_a_record_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom maskstream.shards import Journal\n"
        "from maskstream.preprocess.shard_task import WrittenShard\n"
        "journal = Journal(Path(sys.argv[1]), {'profile': 'train', 'short_side': 256}, WrittenShard)\n"
        "journal.record(type('Task', (), {'name': 'a.tar'}), WrittenShard(shard=None))\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == -9
    with Journal(tmp_path, SETTINGS, WrittenShard) as journal:
        assert journal.stands(Named("a.tar")) == WrittenShard(shard=None)


def test_a_shard_stands_with_all_its_files(tmp_path: Path, samples: list[Sample]) -> None:
    with Journal(tmp_path, SETTINGS, WrittenShard) as journal:
        shard = write_shard(tmp_path / "toy-000000.tar", samples)
        journal.record(Named(shard.name), WrittenShard(shard=shard, rejects=(REJECT,)))
        found = journal.stands(Named(shard.name))
        assert found is not None
        assert found.to_json() == WrittenShard(shard=shard, rejects=(REJECT,)).to_json()
        for suffix in (".tar", ".idx", ".sums"):
            path = tmp_path / f"toy-000000{suffix}"
            data = path.read_bytes()
            path.unlink()
            assert journal.stands(Named(shard.name)) is None
            path.write_bytes(data)
        assert journal.stands(Named(shard.name)) is not None
        (tmp_path / "toy-000000.tar").write_bytes(b"shorter")
        assert journal.stands(Named(shard.name)) is None


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    journal_of(tmp_path).close()
    with pytest.raises(ResumeError, match=r"\(short_side: saved 256, here 128\); use its settings"):
        journal_of(tmp_path, SETTINGS | {"short_side": 128})
    journal_of(tmp_path).close()


def test_an_unreadable_journal_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b"not a database" * 100)
    with pytest.raises(ResumeError, match="delete it to start over"):
        journal_of(tmp_path)


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    journal_of(tmp_path / "new").discard()
    assert list((tmp_path / "new").iterdir()) == []
