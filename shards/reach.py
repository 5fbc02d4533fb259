"""Limits on paths in data. Lists, archives, tables and descriptions of splits contain names of files and folders, which
are data and may be hostile. Only this module decides where such a name may point:

- a source lies below the root of the raw data after resolving links and `..` (`Reach`)
- the name of a dataset or split is a single path component (`is_file_name`), because it becomes the name of tars and
  folders
- a file that is written or deleted lies in the folder of its output (`is_inside`)
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_NO_FILES = frozenset({"", ".", ".."})
_MOST_BYTES = 200
"""Longest name of a dataset or split: with its suffixes, it is still a valid file name."""


def is_file_name(name: str) -> bool:
    """Return True if a name is a single path component, and neither "." nor ".."."""
    return name not in _NO_FILES and "/" not in name and "\0" not in name


def is_split_name(name: str) -> bool:
    """Return whether a name is allowed for a new dataset or split: a printable file name that is not hidden, of at most
    200 bytes.
    """
    if not is_file_name(name) or not name.isprintable() or name.startswith("."):
        return False
    return len(name.encode()) <= _MOST_BYTES


def is_inside(name: str) -> bool:
    """Return True if a relative path stays in its folder lexically: no component is "..", and it is not absolute."""
    return bool(name) and not name.startswith("/") and "\0" not in name and ".." not in name.split("/")


class Reach:
    """Determines which paths point to files below a folder after resolving links and `..`. It reads each folder only
    once.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.join(os.path.realpath(root), "")
        self._folders: dict[str, tuple[bool, frozenset[str] | None]] = {}

    def has(self, path: Path) -> bool:
        """Return True if the file at a path lies below the folder. An impossible path does not."""
        return not any(self.outside([path]))

    def outside(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yield the paths that do not point below the folder. There may be millions, most of them in few folders."""
        last, inside, links = "\0", False, None
        for path in paths:
            folder, _, name = os.fspath(path).rpartition("/")
            if folder != last:
                last = folder
                inside, links = self._folders.get(folder) or self._look_at(folder)
            if inside and links is not None and name not in links and name not in _NO_FILES and "\0" not in name:
                continue
            if not self._holds(path):
                yield path

    def _look_at(self, folder: str) -> tuple[bool, frozenset[str] | None]:
        """Return whether a folder lies below the root, and the names of the links in it; None if it cannot be
        listed.
        """
        links: frozenset[str] | None = None
        with suppress(OSError, ValueError), os.scandir(folder or "/") as entries:
            links = frozenset(entry.name for entry in entries if entry.is_symlink())
        found = self._folders[folder] = self._holds(folder or "/"), links
        return found

    def _holds(self, path: str | Path) -> bool:
        try:
            return os.path.join(os.path.realpath(path), "").startswith(self._root)
        except ValueError:  # a NUL
            return False
