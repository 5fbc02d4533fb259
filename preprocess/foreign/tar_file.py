"""A tar of another program, on a disk or at a URL: its size and age, and its bytes from start to end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...shards.errors import MissingFileError, OutageError
from ...shards.stores.location import is_url, opened
from ...shards.stores.output import Location, folder_and_name, within
from ...shards.stores.stream import stream


class TarState(NamedTuple):
    """The size of a tar in bytes and when it was modified, in ns; at a URL to the second."""

    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class TarFile:
    """The tar at a location."""

    where: Location

    @classmethod
    def of(cls, out: Location, name: str) -> TarFile:
        """The tar that a split in `out` names: by its URL, or by its path from there."""
        return cls(name if is_url(name) else within(out, name))

    def state(self) -> TarState | None:
        """The state of the tar now; None if there is no such file. Raises OutageError if it cannot be asked for."""
        if not is_url(self.where):
            try:
                found = Path(self.where).stat()
            except OSError:
                return None
            return TarState(found.st_size, found.st_mtime_ns)
        from ...shards.stores.far_files import FarFiles

        folder, name = folder_and_name(self.where)
        try:
            return TarState(*FarFiles(str(folder)).state(name))
        except MissingFileError:
            return None

    @contextmanager
    def reading(self) -> Iterator[tuple[BinaryIO, TarState]]:
        """The tar as a stream, and its state before it is read.

        Raises OutageError if it cannot be read, or one at a URL is another one at the end of the block.
        """
        try:
            if is_url(self.where):
                yield from self._reading_far()
                return
            with Path(self.where).open("rb") as file:
                found = os.fstat(file.fileno())
                yield file, TarState(found.st_size, found.st_mtime_ns)
        except OSError as error:
            raise OutageError(f"{self.where} cannot be read ({error.strerror or error})") from error

    def _reading_far(self) -> Iterator[tuple[BinaryIO, TarState]]:
        state = self.state()
        if state is None:
            raise OutageError(f"there is no file {self.where}")
        folder, name = folder_and_name(self.where)
        with stream(opened(folder), name) as file:
            yield file, state
        if self.state() != state:
            raise OutageError(f"{self.where} was changed while it was read")
