"""Find the files below folders. Links are followed, and each real folder is visited once, however many paths lead to
it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.named import list_few

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob"}
    | {".webm", ".wmv"}
)


def list_media(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return all files below a folder with one of the suffixes, sorted.

    Links are followed; hidden files and folders are skipped. A real folder with several paths is visited once: under
    its own path, or else under the first link to it, by depth and name. A link to a parent of `folder` is not followed.

    Args:
        folder: Folder to search.
        suffixes: Suffixes in lower case, with the dot.

    Raises:
        OutageError: A folder cannot be listed.
    """
    return list_media_below([folder], suffixes)[0]


def list_media_below(
    folders: Sequence[Path], suffixes: Collection[str], others: Counter[str] | None = None
) -> list[list[Path]]:
    """Return the files below each of several folders, as `list_media` does. A real folder belongs to only one of them,
    preferably to the one with its own path.

    Args:
        folders: Folders to search.
        suffixes: Suffixes in lower case, with the dot.
        others: Counter to which the number of other files is added, by suffix.

    Raises:
        OutageError: A folder cannot be listed.
    """
    found: list[list[Path]] = [[] for _ in folders]
    visited = {_identity(parent) for folder in folders for parent in folder.resolve().parents}
    starts = sorted((path, n) for n, path in enumerate(folders))
    todo = [(path, n) for path, n in starts if not path.is_symlink()]
    links = [(path, n) for path, n in starts if path.is_symlink()]
    while todo:
        for path, n in todo:
            tree = _Tree.below(path, visited)
            kinds = [file.suffix.lower() for file in tree.files]
            found[n] += [file for file, kind in zip(tree.files, kinds, strict=True) if kind in suffixes]
            if others is not None:
                others.update(kind for kind in kinds if kind not in suffixes)
            links += [(link, n) for link in tree.links]
        todo, links = sorted(links), []
    return [sorted(paths) for paths in found]


def list_distinct_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the folders among `paths`, sorted, each real folder once: under the path with the fewest links, then the
    first.
    """
    kept: dict[tuple[int, int], Path] = {}
    for path in sorted((path for path in paths if path.is_dir()), key=lambda path: (_count_links(path), path)):
        kept.setdefault(_identity(path), path)
    return sorted(kept.values())


def _count_links(path: Path) -> int:
    return sum(part.is_symlink() for part in (path, *path.parents))


def readable(path: PurePath) -> str:
    """Return a path as valid Unicode, with / between folders; bytes that are not UTF-8 are escaped."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tree:
    """The files below a folder, and the links to folders, which are not followed."""

    files: list[Path]
    links: list[Path]

    @classmethod
    def below(cls, folder: Path, visited: set[tuple[int, int]]) -> _Tree:
        """List the tree below a folder without the folders in `visited`, to which its own folders are added."""
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
        """Add the files and links of a folder, and return the folders in it."""
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
    """Return whether a folder was visited before, and mark it as visited."""
    identity = _identity(folder)
    if identity in visited:
        return True
    visited.add(identity)
    return False


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


SPLIT_FOLDERS: Mapping[str, Sequence[str]] = {
    "train": ("train", "training", "videos_train"),
    "val": ("val", "valid", "validate", "validation", "videos_val"),
    "test": ("test", "testing", "videos_test"),
}
"""Names of folders that contain a split."""
_NAMES = [name for names in SPLIT_FOLDERS.values() for name in names]
_LIKE_A_SPLIT = re.compile(rf"({'|'.join(sorted(_NAMES, reverse=True))})([-_. 0-9].*)?", re.IGNORECASE)
"""Matches `train_256`, `val2017` or `Test-large`."""
_LIST_SUFFIXES = frozenset({".csv", ".json", ".list", ".lst", ".txt"})
_NAMES_A_SPLIT = re.compile(rf"({'|'.join(sorted(_NAMES, reverse=True))})([-_. ]?(list|split|set|files|labels))?\d*")


def list_class_folders(
    root: Path, suffixes: Collection[str] = VIDEO_SUFFIXES, others: Counter[str] | None = None
) -> tuple[tuple[str, ...], dict[str, list[Source]], str]:
    """List a folder with one folder per class.

    The splits are the existing folders of `SPLIT_FOLDERS`; without a train folder, all of `root` is train. A file's
    label is the first folder below the split; a file directly in it has the label -1.

    Args:
        root: Folder of the raw data.
        suffixes: Suffixes of the files to list.
        others: Counter to which the number of other files is added, by suffix.

    Returns:
        The sorted label names, the sources of each split with files, and a message about doubtful splits, or "" (see
            `Dataset`).

    Raises:
        DatasetError: Two splits are the same folder.
        OutageError: A folder cannot be listed.
    """
    folders = split_folders(root)
    folders = folders if "train" in folders else {"train": root}
    paths = list_media_below(list(folders.values()), suffixes, others)
    doubt = _describe_doubt(root, folders, paths, suffixes)
    found = {
        split: [(path, _label(path.relative_to(folder))) for path in files]
        for (split, folder), files in zip(folders.items(), paths, strict=True)
    }
    label_names = sorted({label for files in found.values() for _, label in files if label is not None})
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(label_names)}
    listed = {
        split: [
            Source(id=readable(path.relative_to(root)), path=path, label=numbers.get(label, -1))
            for path, label in files
        ]
        for split, files in found.items()
        if files
    }
    return tuple(label_names), listed, doubt


def _describe_doubt(
    root: Path, folders: Mapping[str, Path], paths: Sequence[Sequence[Path]], suffixes: Collection[str]
) -> str:
    """Return a message about folders that look like splits but are not, or that no split contains; "" if there are
    none.
    """
    whole = [*folders.values()] == [root]
    if whole and not _LIST_SUFFIXES & {*suffixes} and (lists := _find_lists_of_splits(root)):
        return (
            f"{list_few(lists)} in {root} look like lists of splits, but this dataset does not read them: all files "
            "would be in the split train. Use a dataset that reads them (`maskstream datasets`), or arrange the files "
            "as train/CLASS, val/CLASS and test/CLASS"
        )
    below = [path.relative_to(root).parts for files in paths for path in files]
    firsts = sorted({parts[0] for parts in below if len(parts) > 1})
    if whole and (alike := [name for name in firsts if _LIKE_A_SPLIT.fullmatch(name)]):
        return (
            f"{list_few(alike, _folder)} in {root} look like splits, but would be classes of the split train. Rename "
            "them to train, val and test"
        )
    if not whole and (left := [path.name for path in _list_others(root, folders) if list_media(path, suffixes)]):
        train = folders["train"].name
        return f"{list_few(left, _folder)} in {root} contain files outside of all splits; move them into {train}/"
    at = 1 if whole else 2
    if inner := sorted({"/".join(parts[: at + 1]) for parts in below if _names_a_split(parts, at)}):
        return (
            f"{list_few(inner, _folder)} in {root} look like splits within classes, but would all be in one split. "
            "Move them to train/CLASS, val/CLASS and test/CLASS"
        )
    return ""


def _list_others(root: Path, folders: Mapping[str, Path]) -> list[Path]:
    """Return the visible folders in `root` that are not splits."""
    known = {path.resolve() for path in folders.values()}
    others = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in others if path.resolve() not in known)


def _find_lists_of_splits(root: Path) -> list[str]:
    """Return the files in `root`, or one folder down, whose names suggest that they list the files of a split."""
    folders = [root, *(root / entry for entry in sorted(os.listdir(root)) if (root / entry).is_dir())]
    found = [folder / name for folder in folders for name in sorted(os.listdir(folder)) if _names_a_list(name)]
    return [path.relative_to(root).as_posix() for path in found if path.is_file()]


def _names_a_list(name: str) -> bool:
    """Return whether a list is named after a split, as in `trainlist01.txt`, `k710_val.csv` or `shapenet-test.json`."""
    stem, suffix = os.path.splitext(name.lower())
    return suffix in _LIST_SUFFIXES and any(_NAMES_A_SPLIT.fullmatch(word) for word in re.split(r"[-_. ]+", stem))


def _names_a_split(parts: Sequence[str], at: int) -> bool:
    """Return whether the folder at position `at` in the path of a file is named like a split."""
    return len(parts) > at + 1 and parts[at].lower() in _NAMES


def _folder(name: str) -> str:
    return f"{name}/"


def _label(below: PurePath) -> str | None:
    """Return the first folder of a path below a split; None if there is none."""
    return readable(PurePath(below.parts[0])) if len(below.parts) > 1 else None


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split that exists.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: A link makes two splits the same folder.
    """
    found = {
        split: folder
        for split, names in SPLIT_FOLDERS.items()
        if (folder := next((root / name for name in names if (root / name).is_dir()), None)) is not None
    }
    if len(list_distinct_folders(found.values())) < len(found):
        raise DatasetError(
            f"two of {', '.join(map(str, found.values()))} are the same folder, so a model would be validated on its "
            "training data. Remove the link"
        )
    return found
