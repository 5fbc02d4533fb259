"""A full disk and a folder that cannot be written: one error that says which, and nothing half written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from maskstream.shards.errors import StoreError
from maskstream.shards.stores import local_files
from maskstream.shards.stores.local_files import create, publish, publishing, sole_writer


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"not enough space to write .*a.tar \(No space left on device\)"):
        publish(tmp_path / "a.tar", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_that_names_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(local_files, "this_run", full)
    with (
        pytest.raises(
            StoreError, match=r"not enough space to write .*\.writing \(No space left on device\); free space and run"
        ),
        sole_writer(tmp_path),
    ):
        pass


def test_an_output_folder_below_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(StoreError, match=r"file/train cannot be written to \(Not a directory\)"),
        sole_writer(tmp_path / "file" / "train"),
    ):
        pass


@pytest.mark.parametrize("write", [publish, create])
def test_a_file_has_any_name_that_a_folder_holds_and_a_longer_one_is_refused(
    tmp_path: Path, write: Callable[[Path, bytes], object]
) -> None:
    longest = "\u00e9" * 127 + "a"
    write(tmp_path / longest, b"data")
    assert [path.name for path in tmp_path.iterdir()] == [longest]
    with pytest.raises(StoreError, match=r"has 256 bytes; use a name of at most 255"):
        write(tmp_path / f"{longest}b", b"data")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_killed_writers_of_a_file_left_goes_and_what_live_ones_write_stays(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        (tmp_path / f".{name}.0123abcd.tmp").touch()
    with publishing(tmp_path / "a.html", alone=True) as first:
        with publishing(tmp_path / "a.html", alone=True) as second:
            second.write(b"second")
        first.write(b"first")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.html.0123abcd.tmp", "a.html"]
    assert (tmp_path / "a.html").read_bytes() == b"first"
