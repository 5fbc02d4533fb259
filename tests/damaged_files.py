"""Damage to files."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, at: int | None = None, bits: int = 1) -> None:
    """Changes bits of one byte of a file: of that in its middle, or at a place."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= bits
    path.write_bytes(data)
