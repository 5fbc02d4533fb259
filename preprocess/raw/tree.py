"""The local tree that a dataset's function lists: the raw data themselves, or what stands for those at a URL.

Datasets look at names, sizes and lists only. So at a URL, all files are listed once, and a tree is made of files of the
same names, sizes and ages without contents; only lists (csv, json, text) are fetched. Tasks fetch the rest
(`files.py`). Data in archives have such a tree too (`archived_tree.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskstream.shards.errors import DatasetError
from maskstream.shards.stores.url import is_url

from .archived_files import ArchivedFiles
from .archived_tree import archives_below
from .file_state import set_age
from .files import LOCAL, RawFiles, UrlFiles
from .scratch import Scratch

if TYPE_CHECKING:
    from .url import RawFile

LISTS = frozenset({"", ".csv", ".json", ".jsonl", ".list", ".lst", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
"""The suffixes of files that datasets read to list their sources."""


@dataclass(frozen=True, slots=True)
class RawTree:
    """A folder with the names of all raw files, where the files are, and the archives among them."""

    root: str
    folder: Path
    files: RawFiles
    archives: tuple[Path, ...] = ()
    outside_root: bool = False
    damaged: bool = False


@contextmanager
def raw_tree(root: str | Path, *, outside_root: bool = False, damaged: bool = False) -> Iterator[RawTree]:
    """The tree of the raw data at a local path or a URL, from which a temporary one is made for the block.

    outside_root: lists and links may name files that are not below a local root. damaged: archives may be damaged, and
    are read as far as they can be. Raises ValueError for a URL that is not legal, OutageError if it cannot be listed.
    """
    if outside_root and is_url(root):
        raise ValueError(f"a list at {root} names files there, and no others; leave --outside-root out")
    if not is_url(root):
        archives, has_rows = archives_below(Path(root))
        if not archives and not has_rows:
            yield RawTree(str(root), Path(root), LOCAL, outside_root=outside_root)
            return
        with closing(Scratch()) as scratch:
            yield RawTree(str(root), Path(root), ArchivedFiles(scratch.folder), archives, outside_root, damaged)
        return
    from .url import THREADS, listed

    url = str(root).rstrip("/")
    with closing(Scratch()) as scratch:
        files = UrlFiles(url, scratch.folder)
        lists = []
        for file in listed(url):
            path = scratch.folder / file.name
            if path.suffix.lower() in LISTS:
                lists.append(path)
            _stand_in(path, url, file)
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda path: files.fetch(path, path), lists):
                pass
        yield RawTree(url, scratch.folder, files)


def _stand_in(path: Path, url: str, file: RawFile) -> None:
    """Make the file that stands for one at the URL: it has its size, without taking room, and its age."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError) as error:
        raise DatasetError(f"{url} holds {file.name!r} as a file and as a folder; rename one") from error
    os.truncate(path, file.size_bytes)
    set_age(path, file.mtime_ns)
