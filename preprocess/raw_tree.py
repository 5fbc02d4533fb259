"""The local tree that a dataset's function lists: the raw data themselves, or what stands for those at a URL.

Datasets look at names, sizes and lists only. So at a URL, all files are listed once, and a tree is made of files of the
same names, sizes and ages without contents; only lists (csv, json, text) are fetched. Tasks fetch the rest
(`raw_files.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..shards.errors import DatasetError, OutageError
from ..shards.stores.location import is_url
from .datasets import Dataset
from .file_state import set_age
from .raw_files import LOCAL, RawFiles, RemoteFiles
from .scratch import Scratch

if TYPE_CHECKING:
    from .raw_store import RawFile

LISTS = frozenset({"", ".csv", ".json", ".jsonl", ".list", ".lst", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
"""The suffixes of files that datasets read to list their sources."""
READ_WHOLE = ("las", "meshgraphnets", "jsonl", "parquet_text", "txt")
"""The datasets that read their media to list them."""


@dataclass(frozen=True, slots=True)
class RawTree:
    """A folder with the names of all raw files, and where the files are."""

    root: str
    folder: Path
    files: RawFiles

    def dataset(self, sources_of: Callable[[Path], Dataset]) -> Dataset:
        """The dataset that a function finds in the tree. Its messages name the root."""
        if self.files is LOCAL:
            return sources_of(self.folder)
        if (name := getattr(sources_of, "__name__", "")) in READ_WHOLE:
            raise DatasetError(f"{name} reads its files to list its sources; copy {self.root} to a local disk first")
        try:
            return sources_of(self.folder)
        except (DatasetError, OutageError) as error:
            raise type(error)(str(error).replace(str(self.folder), self.root)) from error


@contextmanager
def raw_tree(root: str | Path) -> Iterator[RawTree]:
    """The tree of the raw data at a local path or a URL, from which a temporary one is made for the block.

    Raises ValueError for a URL that is not legal, OutageError if it cannot be listed.
    """
    if not is_url(root):
        yield RawTree(str(root), Path(root), LOCAL)
        return
    from .raw_store import THREADS, listed

    url = str(root).rstrip("/")
    with closing(Scratch()) as scratch:
        files = RemoteFiles(url, scratch.folder)
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
