"""The size and checksum of a file, which say whether it still is as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import xxhash

from ...shards.errors import ResumeError

_CHUNK_BYTES = 1 << 20


class DamageError(ResumeError):
    """A file of a run is not as it was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSum:
    """The size of a file, or of its beginning, and the xxh3_128 of these bytes as 32 hex digits."""

    size_bytes: int
    xxh3_128: str

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The sum of bytes."""
        return cls(size_bytes=len(data), xxh3_128=xxhash.xxh3_128_hexdigest(data))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The sum that `asdict` made a dict of."""
        return cls(size_bytes=int(data["size_bytes"]), xxh3_128=str(data["xxh3_128"]))

    def check(self, path: Path) -> None:
        """Raises DamageError unless the file has these bytes and no others."""
        self.begun(path)
        if (size := path.stat().st_size) != self.size_bytes:
            raise DamageError(f"{path.name} has {size} bytes, but was written with {self.size_bytes}")

    def begun(self, path: Path) -> xxhash.xxh3_128:
        """The hash of a file that begins with these bytes, after which more can be added.

        Raises DamageError if the file begins otherwise, is shorter, missing or no regular file, or cannot be read.
        """
        if not path.is_file():
            raise DamageError(f"{path.name} is {'no file' if path.exists() else 'missing'}")
        found, left = xxhash.xxh3_128(), self.size_bytes
        try:
            with path.open("rb") as file:
                while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    found.update(chunk)
                    left -= len(chunk)
        except OSError as error:
            raise DamageError(f"{path.name} cannot be read ({error.strerror})") from error
        if left:
            raise DamageError(f"{path.name} has {self.size_bytes - left} bytes, but was written with {self.size_bytes}")
        if found.hexdigest() != self.xxh3_128:
            raise DamageError(f"{path.name} has other contents than were written (its checksum differs)")
        return found


NO_BYTES = FileSum.of(b"")
