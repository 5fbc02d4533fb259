"""The store of local files, to its very end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maskstream.shards.errors import StoreError
from maskstream.shards.stores.base import Range, Store
from maskstream.shards.stores.local import LocalStore

OUTLIVES_ITS_MODULES = """
import os, sys
from pathlib import Path
from maskstream.shards.stores.local import LocalStore

path = Path(sys.argv[1])
os.store = LocalStore(path.parent)
print(os.store.read(path.name, 0, 3))
"""


def test_files_that_are_open_when_the_interpreter_ends_are_closed_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"whole")
    words = [sys.executable, "-c", OUTLIVES_ITS_MODULES, path]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "b'who'\n", "")


def test_names_are_paths_from_the_folder(tmp_path: Path) -> None:
    for name in ("split/b.tar", "split/a.tar", "split/a.idx", "split/deep/a.tar", "outside.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    store: Store = LocalStore(tmp_path / "split", outside=True)
    assert store.names() == ["a.idx", "a.tar", "b.tar", "deep/a.tar"]
    assert store.names("a.") == ["a.idx", "a.tar"]
    assert store.names("deep/") == ["deep/a.tar"]
    assert store.names("nowhere/") == []
    assert store.size("deep/a.tar") == len("split/deep/a.tar")
    assert store.read_many([Range("../outside.tar", 3, 4), Range("b.tar", 0, 5)]) == [b"side", b"split"]
    with pytest.raises(StoreError, match=r"c\.tar cannot be opened"):
        store.size("c.tar")
