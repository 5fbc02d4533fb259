"""The journal brings a killed run back to where it was, and refuses to mix settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maskstream.shards.errors import ResumeError
from maskstream.shards.format.journal import JOURNAL, Journal
from maskstream.shards.format.sample import Reject, Sample
from maskstream.shards.format.writer import write_shard

SETTINGS = {"profile": "train", "short_side": 256}
REJECT = Reject(source="x.mp4", stage="decode", reason="no frames")


def test_a_later_run_finds_what_an_earlier_one_recorded(tmp_path: Path, samples: list[Sample]) -> None:
    record = write_shard(tmp_path / "toy-000000.tar", samples)
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.finished() == {}
        journal.record(record, [REJECT])
        journal.record(record, [REJECT])
    with Journal(tmp_path, dict(reversed(SETTINGS.items()))) as journal:
        ((name, (found, rejects)),) = journal.finished().items()
    assert name == "toy-000000.tar"
    assert found.to_json() == record.to_json()
    assert rejects == [REJECT]


def test_a_record_survives_a_kill(tmp_path: Path, samples: list[Sample]) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom maskstream.shards import Journal, Sample, write_shard\n"
        "folder = Path(sys.argv[1])\njournal = Journal(folder, {'profile': 'train', 'short_side': 256})\n"
        "sample = Sample(key='a', components={'json': b'{}'}, source='a')\n"
        "journal.record(write_shard(folder / 'toy-000000.tar', [sample]), [])\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == -9
    with Journal(tmp_path, SETTINGS) as journal:
        assert list(journal.finished()) == ["toy-000000.tar"]


def test_a_shard_that_is_gone_is_not_finished(tmp_path: Path, samples: list[Sample]) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        for number in range(3):
            journal.record(write_shard(tmp_path / f"toy-{number:06d}.tar", [samples[number]]), [])
        (tmp_path / "toy-000000.tar").unlink()
        (tmp_path / "toy-000001.idx").unlink()
        assert list(journal.finished()) == ["toy-000002.tar"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Journal(tmp_path, SETTINGS).close()
    with pytest.raises(ResumeError, match=r"\(short_side: 256 there, 128 now\); run with the settings"):
        Journal(tmp_path, SETTINGS | {"short_side": 128})
    Journal(tmp_path, SETTINGS).close()


def test_an_unreadable_journal_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b"not a database" * 100)
    with pytest.raises(ResumeError, match="delete it to begin again"):
        Journal(tmp_path, SETTINGS)


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    Journal(tmp_path / "new", SETTINGS).discard()
    assert list((tmp_path / "new").iterdir()) == []
