"""Tars as others write them, and what became of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar of members (name, bytes)."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def rejects(folder: Path) -> dict[str, str]:
    """Reasons by source."""
    return {row["source"]: row["reason"] for row in pq.read_table(folder / "rejects.parquet").to_pylist()}
