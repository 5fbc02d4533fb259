"""A raw dataset: named splits of sources, label names, and functions that find its files and the lists of its splits.

What is held out for validation, where a publisher has no split, are whole groups of sources that are alike, chosen by
the hash of their names. Near-duplicates in both splits would let a model that only remembers its training data look
good. The choice depends on names alone, so it is the same on every machine, and stays the same for a group when others
are added or taken away from other labels. Of questions the frequent answers of the split train are the classes.
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
"""How many threads look for files, and for how many files each at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """The sources of each split.

    `missing` holds, per split, a reject for each source that the lists name but whose file does not exist. `encoder`
    encodes the sources and names their modality. `doubt` is what is doubtful about splits or labels, as a message, or
    "": whoever uses them must know that they are meant. `absent` has a message for each further split that is listed,
    but has no file: whoever uses the others must know it. `passed_over` counts the files in formats that are not read,
    by suffix.
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
                    f"{self.name[:80]!r} has a {what} that is called {name[:80]!r}; legal are printable names of at "
                    "most 200 bytes without /, which do not begin with a dot, because folders and tars are called so"
                )

    def at(self, root: str, *, instead_of: Path) -> Self:
        """The dataset with messages that name `root` instead of another folder."""
        absent = {split: message.replace(str(instead_of), root) for split, message in self.absent.items()}
        return replace(self, doubt=self.doubt.replace(str(instead_of), root), absent=absent)

    def only(self, chosen: Sequence[str]) -> Self:
        """The splits that are chosen by name; all if none is. DatasetError for one that is not there."""
        if not chosen and self.absent:
            there, names = " ".join(f"--split {split}" for split in self.splits), ", ".join(map(repr, self.splits))
            raise DatasetError(
                f"{next(iter(self.absent.values()))}. To take only what is there, add {there} (splits=[{names}])"
            )
        if not chosen:
            return self
        for split in chosen:
            if split in self.absent:
                raise DatasetError(self.absent[split])
            if split not in self.splits:
                there = ", ".join((*self.splits, *self.absent))
                raise DatasetError(f"{self.name}: there is no split {split!r}; it has {there}")
        return replace(
            self,
            splits={split: sources for split, sources in self.splits.items() if split in chosen},
            missing={split: rejects for split, rejects in self.missing.items() if split in chosen},
        )

    @property
    def modality(self) -> str:
        """What the sources are."""
        return self.encoder.modality


Listing = TypeVar("Listing", bound=Callable[..., Dataset])
_IN_ARCHIVES, _READS_MEDIA = "_in_archives", "_reads_media"


def in_archives(*lists: str) -> Callable[[Listing], Listing]:
    """Declare of the function of a dataset that its raw data may stay in archives, which count as unpacked where they
    lie. The function looks at names and sizes, and reads only lists with the suffixes `lists`, such as ".csv"; of those
    at a URL, ".parquet" is fetched if it is declared.
    """

    def declare(function: Listing) -> Listing:
        setattr(function, _IN_ARCHIVES, frozenset(lists))
        return function

    return declare


def reads_media(function: Listing) -> Listing:
    """Declare of the function of a dataset that it reads its media to list them, so that they must be on a disk."""
    setattr(function, _READS_MEDIA, True)
    return function


class Declared(NamedTuple):
    """What the function of a dataset declares: its name, the suffixes of the lists that it reads in archives (None: its
    raw data must be unpacked), and whether it reads its media.
    """

    name: str
    in_archives: frozenset[str] | None
    reads_media: bool


def declared(sources_of: Callable[[Path], Dataset]) -> Declared:
    """What a function declares; one with some arguments given, what the function itself does."""
    function = unwrap(sources_of)
    function = function.func if isinstance(function, partial) else function
    return Declared(
        getattr(function, "__name__", ""), getattr(function, _IN_ARCHIVES, None), getattr(function, _READS_MEDIA, False)
    )


def split_present(listed: Iterable[Source], root: Path) -> tuple[list[Source], list[Reject]]:
    """The sources whose files exist, and a reject for each other source. Threads look for them, for a network's file
    system takes a millisecond a file.
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
        if error.errno == errno.ENAMETOOLONG:  # a list may say anything
            return False
        raise OutageError(f"{path} cannot be looked for ({error.strerror}); run the same command again") from error


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
    """The dataset of the sources `listed`; `encoder` is by default that of videos. Labels that say nothing are a doubt,
    unless the sources are not `labelled`. A split of which no file exists is absent.

    Raises DatasetError if no file of any split exists.
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
                f"{name}: the split {split!r} lists {len(sources)} {file_noun(encoder.modality)}{example}, but none is "
                f"below {root}. {obtain}"
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
    """What makes the labels doubtful: that no source has one, or all have the same."""
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
    """The noun for the raw files in messages."""
    return "videos" if modality == "video" else f"{modality} files"


class MediaFiles:
    """Finds the files below a folder by their names; only files with one of `suffixes` count."""

    def __init__(self, root: Path, suffixes: Collection[str] = VIDEO_SUFFIXES) -> None:
        self._root = root
        self._found: dict[str, list[Path]] = {}
        for path in list_media(root, suffixes):
            self._found.setdefault(path.stem.lower(), []).append(path)

    def find(self, stem: str, prefer: Callable[[Path], bool]) -> Path:
        """The file with this name, without suffix and in any case. Of several, the first that `prefer` accepts.

        If there is none, the path that it would have in the root folder.
        """
        found = self._found.get(stem.lower(), [])
        return next(filter(prefer, found), found[0] if found else self._root / stem)


def find_first_existing(root: Path, *patterns: str) -> Path | None:
    """The first file below `root` that matches one of the relative patterns, tried in order; None if there is none."""
    return next((path for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_file()), None)


def describe_one_down(root: Path, *patterns: str) -> str:
    """A sentence that names the folder in `root` that has what `root` lacks, with a space before it; "" if none has."""
    found = find_first_existing(root, *(f"*/{pattern}" for pattern in patterns))
    if found is None:
        return ""
    folder = found.relative_to(root).parts[0]
    return f" {root / folder} has {found.relative_to(root / folder)}: give that folder as ROOT (--root)."


def require_folder(root: Path, *, name: str, obtain: str) -> None:
    """Raise DatasetError if the folder of a dataset does not exist."""
    if not root.is_dir():
        raise DatasetError(f"{name}: there is no folder {root}. {obtain}")


def label_map(dataset: str, root: Path, count: int, obtain: str) -> list[str]:
    """The names of labels from 0 on, as VideoMAE V2, MMAction2 and UCF101 keep them: in `label_map*.txt` or
    `classInd.txt` in ROOT or a folder there; without these files their numbers. The line of a name is its label.

    Raises DatasetError if there are fewer than `count` names.
    """
    path = find_first_existing(root, "label_map*.txt", "*/label_map*.txt", "classInd.txt", "*/classInd.txt")
    if path is None:
        return list(map(str, range(count)))
    names = [re.sub(r"^[0-9]+ ", "", line) if path.name == "classInd.txt" else line for _, line in read_lines(path)]
    if len(names) < count:
        raise DatasetError(f"{dataset}: {path} has {len(names)} names, but a list has the label {count - 1}. {obtain}")
    return names


EVAL = ("eval", "evaluation")


def split_lists(
    dataset: str, folders: Iterable[Path], words: Mapping[str, Collection[str]], suffixes: Collection[str], obtain: str
) -> dict[str, Path]:
    """The list of each split that has one: a file with one of `suffixes` whose name has one of the split's `words`.

    Raises DatasetError if several files could be the list of a split, or train has none.
    """
    places = [folder for folder in folders if folder.is_dir()]
    files = [path for folder in places for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    found: dict[str, Path] = {}
    for split, own in words.items():
        alike = [path for path in files if {*own} & {*re.split(r"[^a-z]+", path.stem.lower())} and path.is_file()]
        if len(alike) > 1:
            names = ", ".join(map(str, alike))
            raise DatasetError(f"{dataset}: several files may be the list of the split {split} ({names}); keep one")
        if alike:
            found[split] = alike[0]
    if "train" not in found:
        raise DatasetError(f"{dataset}: there is no list of the split train in {places[0]}. {obtain}")
    return found


def choose_held_out_groups(sources: Iterable[tuple[int, str]], share: float = 0.2) -> set[str]:
    """The groups that are validation; sources: the label and the group of each source.

    Of each label about `share` of the sources are held out: groups are taken in the order of their hashes, while the
    share is not exceeded by more than half a group. At least one group of each label is held out, and at least one is
    kept for training; the only group of a label is kept. A group of several labels is held out whole if one of them
    holds it out.
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
"""The most answers that are classes."""


def number_answers(splits: Mapping[str, Sequence[Source]]) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    """The label names, and the sources with their labels: of each its answer, or the first of several.

    The classes are the most frequent answers of train, at most `MOST`, in alphabetical order; a source with another
    answer has the label -1.
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
    """The answer of a source in lower case, the first of several; "" without one."""
    given = source.meta.get("answer", "")
    first = given if isinstance(given, str) else next(iter(given), "")
    return str(first).strip().lower()
