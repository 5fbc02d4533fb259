"""The local tree that a dataset's function lists: the raw data themselves, or what stands for those at a URL.

Datasets look at names, sizes and lists only. So at a URL, all files are listed once, and a tree is made of files of the
same names, sizes and ages without contents; only lists (csv, json, text) are fetched. Tasks fetch the rest
(`raw_files.py`). Data in archives have such a tree too (`archived_tree.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ..shards.errors import DatasetError, OutageError
from ..shards.reach import Reach, stays_inside
from ..shards.stores.location import is_url
from .archived_files import MARK, ArchivedFiles, archive_and_name
from .archived_tree import ArchivedTree, archives_below
from .datasets import Dataset
from .file_state import set_age
from .raw_files import LOCAL, RawFiles, RemoteFiles
from .scratch import Scratch

if TYPE_CHECKING:
    from .raw_store import RawFile

LISTS = frozenset({"", ".csv", ".json", ".jsonl", ".list", ".lst", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
"""The suffixes of files that datasets read to list their sources."""
READ_WHOLE = ("las", "lerobot", "meshgraphnets", "jsonl", "parquet_media", "parquet_text", "txt")
"""The datasets that read their media to list them."""
_CSV, _JSON, _TXT = frozenset({".csv"}), frozenset({".json"}), frozenset({".txt"})
IN_ARCHIVES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("audio_folder", "audiovisual_folder", "folder", "image_folder", "mesh_folder"), _CSV),
    **dict.fromkeys(("points_folder", "audioset", "esc50", "k400", "shapenet", "vggsound"), _CSV),
    **dict.fromkeys(("hmdb51", "librispeech", "modelnet40", "shapenet55", "tum_rgbd", "ucf101"), _TXT),
    **dict.fromkeys(("imagefolder", "microphones", "pose_folder"), frozenset()),
    **{"audio_json": _CSV | _JSON, "image_text_folder": _JSON | _TXT, "shapenetpart": _JSON | _TXT, "ssv2": _JSON},
    "video_list": _CSV | _TXT,
}
"""The datasets that are also read from archives, which count as unpacked where they lie, and the suffixes of the lists
that each reads there.
"""
_SHOWN = 3
_IN_ARCHIVE = f"{MARK}/"


@dataclass(frozen=True, slots=True)
class RawTree:
    """A folder with the names of all raw files, where the files are, and the archives among them."""

    root: str
    folder: Path
    files: RawFiles
    archives: tuple[Path, ...] = ()
    outside_root: bool = False
    damaged: bool = False

    def dataset(self, sources_of: Callable[[Path], Dataset]) -> Dataset:
        """The dataset that a function finds in the tree. Its messages name the root.

        Raises DatasetError for sources that are not below it, as lists and links may name them.
        """
        found = self._found(sources_of)
        self._check_reach(found)
        return found

    def _check_reach(self, found: Dataset) -> None:
        """Raise DatasetError for sources whose files lie outside of the root, links and `..` resolved."""
        packed = isinstance(self.files, ArchivedFiles)
        if self.outside_root and not packed:
            return
        reach = Reach(self.folder)
        strange = set(self._outside(_files_of(found), reach) if packed else reach.outside(_files_of(found)))
        if not strange:
            return
        sources = (source for split in found.splits.values() for source in split)
        first = next(source for source in sources if strange.intersection(source.files))
        path = next(path for path in first.files if path in strange)
        raise DatasetError(
            f"{found.name}: {len(strange)} files of its sources are not below {self.root}, such as {path} of "
            f"{first.id!r}: a list or a link leads out. {self._remedy()}"
        )

    def _outside(self, paths: Iterable[Path], reach: Reach) -> Iterator[Path]:
        """Those of the paths, also of members of archives, that lead where they may not."""
        for path in paths:
            packed = archive_and_name(path) if _IN_ARCHIVE in os.fspath(path) else None
            archive, name = packed or (path, path.name)
            if (packed and not stays_inside(name)) or not (self.outside_root or reach.has(archive)):
                yield path

    def _remedy(self) -> str:
        if is_url(self.root):
            return "Take them out of the list"
        return "Move them there; or, if you trust who made the list, add --outside-root (outside_root=True)"

    def _found(self, sources_of: Callable[[Path], Dataset]) -> Dataset:
        if not isinstance(self.files, RemoteFiles):
            lists = IN_ARCHIVES.get(_name(sources_of)) if self.archives else None
            return sources_of(self.folder) if lists is None else self._from_archives(sources_of, lists)
        if (name := _name(sources_of)) in READ_WHOLE:
            raise DatasetError(f"{name} reads its files to list its sources; copy {self.root} to a local disk first")
        try:
            found = sources_of(self.folder)
            return found.at(self.root, instead_of=self.folder)
        except (DatasetError, OutageError) as error:
            raise type(error)(str(error).replace(str(self.folder), self.root)) from error

    def _from_archives(self, sources_of: Callable[[Path], Dataset], lists: frozenset[str]) -> Dataset:
        """The dataset as if the archives were unpacked; files with the suffixes `lists` are."""
        with closing(Scratch()) as scratch:
            tree = ArchivedTree.make(self.folder, self.archives, scratch.folder, lists, damaged=self.damaged)
            try:
                return tree.dataset(sources_of(tree.folder))
            except (DatasetError, OutageError) as error:
                told = str(error).replace(str(tree.folder), self.root)
                raise type(error)(f"{told} ({self._archives_told()})") from error

    def _archives_told(self) -> str:
        """Which archives count as unpacked."""
        names = [archive.relative_to(self.folder).as_posix() for archive in self.archives]
        return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''} count as unpacked"


def _files_of(found: Dataset) -> list[Path]:
    """The files of all sources; there may be millions."""
    sources = [source for split in found.splits.values() for source in split if not source.computed]
    return [source.path for source in sources] + [path for source in sources if source.parts for path in source.parts]


def _name(sources_of: Callable[[Path], Dataset]) -> str:
    """The name of a dataset's function; of one with some arguments given, that of the function itself."""
    function = unwrap(sources_of)
    return getattr(function.func if isinstance(function, partial) else function, "__name__", "")


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
