"""A full disk and a folder that cannot be written: one error that says which, and nothing half written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maskstream.shards.errors import StoreError
from maskstream.shards.stores.local_files import publish, sole_writer


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"no space to write .*a.tar \(No space left on device\)"):
        publish(tmp_path / "a.tar", b"data")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_below_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(StoreError, match=r"file/train cannot be written to \(Not a directory\)"),
        sole_writer(tmp_path / "file" / "train"),
    ):
        pass
