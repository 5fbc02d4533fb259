"""Kills `maskstream shards` of pictures in archives: the same command goes on to the same bytes, and nothing is left in
the folder for temporary files.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from . import shard_kills
from .kills import Job, kills


def shards(root: Path, out: Path) -> None:
    """The command's work, with temporary files beside the output."""
    temporary = temporary_of(out)
    temporary.mkdir(parents=True, exist_ok=True)
    os.environ |= {"TMPDIR": str(temporary), "MASKSTREAM_CACHE": str(out.parent / "cache")}
    tempfile.tempdir = None
    shard_kills.shards(root, out)


def temporary_of(out: Path) -> Path:
    return out.parent / "temporary"


def contents(out: Path) -> dict[str, str]:
    """What is in the output, and the files that are left in the folder for temporary ones. A kill before a folder has
    its mark leaves an empty one, which nobody deletes, for it does not prove whose it is.
    """
    left = {f"temporary/{path.name}": "left" for path in temporary_of(out).rglob("*") if not path.is_dir()}
    return shard_kills.contents(out) | left


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Kills the making of shards of pictures in a tar and in a compressed one `count` times."""
    raw = folder / "raw"
    shard_kills.pictures(raw, seed)
    for label, ending, mode in (("a", ".tar", "w"), ("b", ".tar.gz", "w:gz")):
        with tarfile.open(raw / f"{label}{ending}", mode) as tar:
            tar.add(raw / label, label)
        shutil.rmtree(raw / label)
    return kills(Job(run=partial(shards, raw), outcome=contents, finished=shard_kills.is_finished), count, seed, folder)
