"""Finds the files below folders. Links are followed, and each real folder is visited once, whatever leads to it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from maskstream.shards.errors import OutageError


def media_paths(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """All files below a folder whose suffix is one of `suffixes` (lower case, with the dot), sorted.

    Links are followed, hidden files and folders are left out. A real folder that several paths lead to is visited once:
    under its own path, or else under the first of the links to it, in the order of their depth and name. A link to a
    folder that holds `folder` is not followed. Raises OutageError if a folder cannot be listed.
    """
    return media_below([folder], suffixes)[0]


def media_below(folders: Sequence[Path], suffixes: Collection[str]) -> list[list[Path]]:
    """The same for each of several folders. A real folder belongs to only one of them, to that with its own path."""
    found: list[list[Path]] = [[] for _ in folders]
    visited = {_identity(parent) for folder in folders for parent in folder.resolve().parents}
    starts = sorted((path, n) for n, path in enumerate(folders))
    todo = [(path, n) for path, n in starts if not path.is_symlink()]
    links = [(path, n) for path, n in starts if path.is_symlink()]
    while todo:
        for path, n in todo:
            tree = _Tree.below(path, visited)
            found[n] += [file for file in tree.files if file.suffix.lower() in suffixes]
            links += [(link, n) for link in tree.links]
        todo, links = sorted(links), []
    return [sorted(paths) for paths in found]


def distinct_folders(paths: Iterable[Path]) -> list[Path]:
    """The sorted folders among `paths`, each real folder once: under the path with the fewest links, then the first."""
    kept: dict[tuple[int, int], Path] = {}
    for path in sorted((path for path in paths if path.is_dir()), key=lambda path: (_links(path), path)):
        kept.setdefault(_identity(path), path)
    return sorted(kept.values())


def _links(path: Path) -> int:
    return sum(part.is_symlink() for part in (path, *path.parents))


def readable(path: PurePath) -> str:
    """The path as valid Unicode, with / between folders; bytes that are no UTF-8 are escaped."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tree:
    """The files below a folder, and the links to folders, which are not followed."""

    files: list[Path]
    links: list[Path]

    @classmethod
    def below(cls, folder: Path, visited: set[tuple[int, int]]) -> _Tree:
        """The tree without the folders in `visited`, to which its own are added."""
        tree = cls(files=[], links=[])
        todo = [folder]
        while todo:
            parent = todo.pop()
            try:
                if not _seen(parent, visited):
                    todo += tree._take(parent)
            except OSError as error:
                raise OutageError(
                    f"{parent} cannot be listed ({error.strerror}); make it readable and run the same command again"
                ) from error
        return tree

    def _take(self, parent: Path) -> list[Path]:
        """Add the files and links of a folder; returns the folders in it."""
        folders: list[Path] = []
        with os.scandir(parent) as entries:
            for entry in entries:
                path = parent / entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    (self.links if path.is_dir() else self.files).append(path)
                else:
                    (folders if entry.is_dir() else self.files).append(path)
        return folders


def _seen(folder: Path, visited: set[tuple[int, int]]) -> bool:
    """Whether a folder was visited before; it counts as visited from now on."""
    identity = _identity(folder)
    if identity in visited:
        return True
    visited.add(identity)
    return False


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
