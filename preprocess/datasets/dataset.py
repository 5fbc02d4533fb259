"""A raw dataset: named splits of sources, label names, and helpers that find its files and the lists of its splits.

If a publisher has no validation split, whole groups of similar sources become one, chosen by the hash of their names.
Near-duplicates in both splits would favour a model that only memorises its training data. The choice depends only on
names, so it is the same on every machine, and does not change for a group when groups of other labels are added or
removed. For questions, the frequent answers of the train split are the classes.
"""

import errno
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import xxhash

from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.raw.lists import read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.sample import Reject
from maskstream.shards.reach import is_split_name

from .folders import VIDEO_SUFFIXES, list_media

_THREADS, _LOOKED_UP = 32, 64
"""Number of threads that look for files, and number of files that each checks at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A raw dataset: the sources of each split.

    Attributes:
        name: Name of the dataset, used for folders and tars.
        label_names: Names of the classes, in the order of their numbers.
        splits: Sources by split.
        missing: Rejects by split, one for each listed source whose file does not exist.
        encoder: Encoder of the sources, which also defines their modality.
        doubt: Message about doubtful splits or labels, "" if there are none; a job only continues if the user confirms
            it.
        absent: Messages by split, for listed splits without any file.
        passed_over: Number of files in unsupported formats, by suffix.
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, list[Source]]
    missing: dict[str, list[Reject]] = field(default_factory=dict)
    encoder: Encoder = field(default_factory=VideoEncoder)
    doubt: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, name in (("dataset", self.name), *(("split", split) for split in self.splits)):
            if not is_split_name(name):
                raise DatasetError(
                    f"{self.name[:80]!r} has a {what} named {name[:80]!r}, which also names folders and tars: use a "
                    "printable name of at most 200 bytes, without / and not beginning with a dot"
                )

    def at(self, root: str, *, instead_of: Path) -> Self:
        """Return the dataset with messages that name another folder or URL.

        Args:
            root: Folder or URL to name.
            instead_of: Folder that the messages name now.
        """
        absent = {split: message.replace(str(instead_of), root) for split, message in self.absent.items()}
        return replace(self, doubt=self.doubt.replace(str(instead_of), root), absent=absent)

    def only(self, chosen: Sequence[str]) -> Self:
        """Return the dataset with some of its splits.

        Args:
            chosen: Names of the splits; all if empty.

        Raises:
            DatasetError: There is no such split, or it has no files.
        """
        if not chosen and self.absent:
            there, names = " ".join(f"--split {split}" for split in self.splits), ", ".join(map(repr, self.splits))
            raise DatasetError(
                f"{next(iter(self.absent.values()))}. To use only the available splits, add {there} (splits=[{names}])"
            )
        if not chosen:
            return self
        for split in chosen:
            if split in self.absent:
                raise DatasetError(self.absent[split])
            if split not in self.splits:
                there = ", ".join((*self.splits, *self.absent))
                raise DatasetError(f"{self.name} has no split {split!r}; use one of {there}")
        return replace(
            self,
            splits={split: sources for split, sources in self.splits.items() if split in chosen},
            missing={split: rejects for split, rejects in self.missing.items() if split in chosen},
        )

    @property
    def modality(self) -> str:
        """Modality of the sources."""
        return self.encoder.modality


Listing = TypeVar("Listing", bound=Callable[..., Dataset])
_IN_ARCHIVES, _READS_MEDIA = "_in_archives", "_reads_media"


def in_archives(*lists: str) -> Callable[[Listing], Listing]:
    """Declare that the raw data of a dataset may stay in archives, whose members count as files of the folder of the
    archive.

    The function then only looks at names and sizes, and reads only lists.

    Args:
        lists: Suffixes of the lists that it reads, such as ".csv". If the data is at a URL, ".parquet" files are
            fetched only if that suffix is declared.
    """

    def declare(function: Listing) -> Listing:
        setattr(function, _IN_ARCHIVES, frozenset(lists))
        return function

    return declare


def reads_media(function: Listing) -> Listing:
    """Declare that the function of a dataset reads media files to list them, so that they must be on a local disk."""
    setattr(function, _READS_MEDIA, True)
    return function


class Declared(NamedTuple):
    """The properties that the function of a dataset declares.

    Attributes:
        name: Name of the function.
        in_archives: Suffixes of the lists that it reads in archives; None if its raw data must be unpacked.
        reads_media: Whether it reads media files.
    """

    name: str
    in_archives: frozenset[str] | None
    reads_media: bool


def declared(sources_of: Callable[[Path], Dataset]) -> Declared:
    """Return the properties that the function of a dataset declares, also of a partial function."""
    function = unwrap(sources_of)
    function = function.func if isinstance(function, partial) else function
    return Declared(
        getattr(function, "__name__", ""), getattr(function, _IN_ARCHIVES, None), getattr(function, _READS_MEDIA, False)
    )


def split_present(listed: Iterable[Source], root: Path) -> tuple[list[Source], list[Reject]]:
    """Separate the sources whose files exist from the others. Threads check them, because network file systems take a
    millisecond per file.

    Args:
        listed: Sources of a list.
        root: Root folder, to which the paths in messages are relative.

    Returns:
        The present sources, and a reject for each missing one.

    Raises:
        OutageError: A file cannot be checked.
    """
    sources = list(listed)
    present: list[Source] = []
    missing: list[Reject] = []
    parts = [sources[at : at + _LOOKED_UP] for at in range(0, len(sources), _LOOKED_UP)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for part, found in zip(parts, pool.map(_check_exist, parts), strict=True):
            present += (source for source, is_there in zip(part, found, strict=True) if is_there)
            missing += (_missing(source, root) for source, is_there in zip(part, found, strict=True) if not is_there)
    return present, missing


def _check_exist(sources: list[Source]) -> list[bool]:
    return [_is_file(source.path) for source in sources]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a list may contain any text
            return False
        raise OutageError(
            f"cannot check whether {path} exists ({error.strerror}); run the same command again"
        ) from error


def _missing(source: Source, root: Path) -> Reject:
    where = source.path.relative_to(root) if source.path.is_relative_to(root) else source.path
    return Reject(source=source.id, stage="missing", reason=f"there is no file {where}")


def dataset_of(
    name: str,
    label_names: Iterable[str],
    listed: dict[str, list[Source]],
    *,
    root: Path,
    obtain: str,
    encoder: Encoder | None = None,
    doubt: str = "",
    labelled: bool = True,
) -> Dataset:
    """Build a dataset from listed sources, and check which of their files exist.

    A split without any existing file becomes absent. Uninformative labels are a doubt.

    Args:
        name: Name of the dataset.
        label_names: Names of the classes, in the order of their numbers.
        listed: Sources by split.
        root: Root folder of the raw data.
        obtain: Sentence that explains how to get and arrange the data, appended to messages.
        encoder: Encoder of the sources; a VideoEncoder by default.
        doubt: Message about doubtful splits; see `Dataset`.
        labelled: Whether sources without labels are a doubt.

    Raises:
        DatasetError: None of the listed files exists.
    """
    encoder = encoder or VideoEncoder()
    splits: dict[str, list[Source]] = {}
    missing: dict[str, list[Reject]] = {}
    absent: dict[str, str] = {}
    for split, sources in listed.items():
        present, lacking = split_present(sources, root)
        if present:
            splits[split], missing[split] = present, lacking
        else:
            example = f", such as {sources[0].id}" if sources else ""
            absent[split] = (
                f"{name}: the split {split!r} lists {len(sources)} {file_noun(encoder.modality)}{example}, but none of "
                f"them exists below {root}. {obtain}"
            )
    if absent and not splits:
        raise DatasetError(next(iter(absent.values())))
    names = tuple(label_names)
    if labelled:
        doubt = doubt or label_doubt(splits, names, file_noun(encoder.modality), obtain)
    return Dataset(
        name=name, label_names=names, splits=splits, missing=missing, encoder=encoder, doubt=doubt, absent=absent
    )


def label_doubt(splits: Mapping[str, Sequence[Source]], names: tuple[str, ...], files: str, obtain: str) -> str:
    """Return a message if no source has a label, or all have the same one, else "".

    Args:
        splits: Sources by split.
        names: Names of the classes.
        files: Plural noun for the sources.
        obtain: Sentence that explains how to arrange the data.
    """
    labels = {source.label for sources in splits.values() for source in sources}
    count = sum(map(len, splits.values()))
    if labels == {-1}:
        if count == 1:
            return f"the only {files.removesuffix('s')} would have no label. {obtain}"
        return f"none of the {count} {files} would have a label. {obtain}"
    several = {str(source.meta.get("labels")) for sources in splits.values() for source in sources}
    if len(labels) == 1 and count > 1 and len(several) == 1:
        (label,) = labels
        return f"all {count} {files} would have the same label, {names[label]!r}. {obtain}"
    return ""


def file_noun(modality: str) -> str:
    """Return the plural noun for raw files of a modality in messages."""
    return "videos" if modality == "video" else f"{modality} files"


class MediaFiles:
    """Index of the media files below a folder by name.

    Args:
        root: Folder to search.
        suffixes: Suffixes of the files to index.
    """

    def __init__(self, root: Path, suffixes: Collection[str] = VIDEO_SUFFIXES) -> None:
        self._root = root
        self._found: dict[str, list[Path]] = {}
        for path in list_media(root, suffixes):
            self._found.setdefault(path.stem.lower(), []).append(path)

    def find(self, stem: str, prefer: Callable[[Path], bool]) -> Path:
        """Return the file with this name; if there is none, the path that it would have in the root folder.

        Args:
            stem: Name without suffix, in any case.
            prefer: Predicate of paths; of several files, the first that satisfies it is returned.
        """
        found = self._found.get(stem.lower(), [])
        return next(filter(prefer, found), found[0] if found else self._root / stem)


def find_first_existing(root: Path, *patterns: str) -> Path | None:
    """Return the first file below `root` that matches one of the relative patterns, tried in order; None if there is
    none.
    """
    return next((path for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_file()), None)


def describe_one_down(root: Path, *patterns: str) -> str:
    """Return a sentence, with a leading space, that suggests a folder in `root` that has the files; "" if none has.

    Args:
        root: Folder that lacks the files.
        patterns: Relative patterns of the files.
    """
    found = find_first_existing(root, *(f"*/{pattern}" for pattern in patterns))
    if found is None:
        return ""
    folder = found.relative_to(root).parts[0]
    return f" {root / folder} has {found.relative_to(root / folder)}: pass that folder as ROOT (--root)."


def require_folder(root: Path, *, name: str, obtain: str) -> None:
    """Raise DatasetError if the folder of a dataset does not exist."""
    if not root.is_dir():
        raise DatasetError(f"{name}: the folder {root} does not exist. {obtain}")


def label_map(dataset: str, root: Path, count: int, obtain: str) -> list[str]:
    """Read the names of labels as VideoMAE V2, MMAction2 and UCF101 store them: one line for each label, from 0.

    Args:
        dataset: Name of the dataset, for messages.
        root: Folder that has, directly or one level down, `label_map*.txt` or `classInd.txt`. Without such a file, the
            names are the numbers.
        count: Number of labels that the lists use.
        obtain: Sentence that explains how to arrange the data.

    Raises:
        DatasetError: The file has fewer than `count` names.
    """
    path = find_first_existing(root, "label_map*.txt", "*/label_map*.txt", "classInd.txt", "*/classInd.txt")
    if path is None:
        return list(map(str, range(count)))
    names = [re.sub(r"^[0-9]+ ", "", line) if path.name == "classInd.txt" else line for _, line in read_lines(path)]
    if len(names) < count:
        raise DatasetError(
            f"{dataset}: {path} has {len(names)} names, but a list contains the label {count - 1}. {obtain}"
        )
    return names


EVAL = ("eval", "evaluation")


def split_lists(
    dataset: str, folders: Iterable[Path], words: Mapping[str, Collection[str]], suffixes: Collection[str], obtain: str
) -> dict[str, Path]:
    """Return the list of each split that has one.

    Args:
        dataset: Name of the dataset, for messages.
        folders: Folders to search.
        words: Words by split; a file belongs to a split if its name has one of them.
        suffixes: Suffixes of lists.
        obtain: Sentence that explains how to arrange the data.

    Raises:
        DatasetError: Several files could be the list of a split, or train has no list.
    """
    places = [folder for folder in folders if folder.is_dir()]
    files = [path for folder in places for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    found: dict[str, Path] = {}
    for split, own in words.items():
        alike = [path for path in files if {*own} & {*re.split(r"[^a-z]+", path.stem.lower())} and path.is_file()]
        if len(alike) > 1:
            names = ", ".join(map(str, alike))
            raise DatasetError(
                f"{dataset}: several files could be the list of the split {split} ({names}); keep only one"
            )
        if alike:
            found[split] = alike[0]
    if "train" not in found:
        raise DatasetError(f"{dataset}: there is no list of the split train in {places[0]}. {obtain}")
    return found


def choose_held_out_groups(sources: Iterable[tuple[int, str]], share: float = 0.2) -> set[str]:
    """Choose the groups that form the validation split.

    About `share` of the sources of each label are chosen: groups in the order of their hashes, as long as they exceed
    the share by at most half a group. Each label contributes at least one group, and keeps at least one for training; a
    label with a single group keeps it. A group of several labels is chosen as a whole if one of its labels chooses it.

    Args:
        sources: Label and group of each source.
        share: Fraction of the sources for validation.
    """
    by_label: dict[int, Counter[str]] = {}
    for label, group in sources:
        by_label.setdefault(label, Counter())[group] += 1
    found: set[str] = set()
    for sizes in by_label.values():
        wanted = share * sizes.total()
        taken = 0
        for group in sorted(sizes, key=_hash)[: len(sizes) - 1]:
            if taken and taken + sizes[group] / 2 > wanted:
                continue
            taken += sizes[group]
            found.add(group)
    return found


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


MOST = 3000
"""Largest number of answers that become classes."""


def number_answers(splits: Mapping[str, Sequence[Source]]) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    """Label each source by its answer, or the first of several.

    The classes are the most frequent answers of train, at most `MOST`, in alphabetical order; other answers get the
    label -1.

    Args:
        splits: Sources by split, with `answer` in their metadata.

    Returns:
        The label names, and the labelled sources by split.
    """
    counts = Counter(find_first_answer(source) for source in splits.get("train", ()))
    counts.pop("", None)
    kept = sorted(sorted(counts, key=lambda answer: (-counts[answer], answer))[:MOST])
    number = {answer: n for n, answer in enumerate(kept)}
    return tuple(kept), {
        split: [replace(source, label=number.get(find_first_answer(source), -1)) for source in sources]
        for split, sources in splits.items()
    }


def find_first_answer(source: Source) -> str:
    """Return the answer of a source in lower case, the first of several; "" if it has none."""
    given = source.meta.get("answer", "")
    first = given if isinstance(given, str) else next(iter(given), "")
    return str(first).strip().lower()
