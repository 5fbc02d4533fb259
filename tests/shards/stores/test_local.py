"""The store of local files, to its very end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OUTLIVES_ITS_MODULES = """
import os, sys
from pathlib import Path
from maskstream.shards.stores.local import LocalStore

os.store = LocalStore()
print(os.store.read(Path(sys.argv[1]), 0, 3))
"""


def test_files_that_are_open_when_the_interpreter_ends_are_closed_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"whole")
    words = [sys.executable, "-c", OUTLIVES_ITS_MODULES, path]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "b'who'\n", "")
