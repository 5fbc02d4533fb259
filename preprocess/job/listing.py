"""Lists the sources of a dataset: its function is asked about a tree of raw data, and told the paths that are there.

Datasets look at names, sizes and lists only, so raw data at a URL or in archives are shown to them as a tree of files
that have no contents (`raw/tree.py`, `raw/archived_tree.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from maskstream.preprocess.datasets import Dataset, chosen_dataset
from maskstream.preprocess.datasets.dataset import declared
from maskstream.preprocess.encode.encoder import KEEP, damage_settings, in_profile, with_settings
from maskstream.preprocess.raw.archive_list import members_of
from maskstream.preprocess.raw.files import RawFiles, UrlFiles
from maskstream.preprocess.raw.scratch import Scratch
from maskstream.preprocess.raw.tree import MARK, ArchivedFiles, ArchivedTree, RawTree, archive_and_name, raw_tree
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.sample import Reject
from maskstream.shards.reach import Reach, stays_inside
from maskstream.shards.stores.url import is_url

from .options import JobOptions
from .report import ARCHIVE

_IN_ARCHIVE = f"{MARK}/"
_SHOWN = 3

SourcesOf = Callable[[Path], Dataset]


@contextmanager
def listed(dataset: str | SourcesOf, root: str | Path, options: JobOptions) -> Iterator[tuple[Dataset, RawFiles]]:
    """The chosen splits of a dataset with the encoder that the options ask for, and where its files are during the
    block.

    Raises ValueError for settings that neither has, DatasetError if splits or labels are doubtful, unless this is
    wanted, and for splits without any file.
    """
    sources_of, words = chosen_dataset(dataset, options.settings)
    with raw_tree(root, outside_root=options.outside_root, damaged=options.damage == KEEP) as tree:
        raw = _chosen(sources_of, tree, options)
        words = [*words, *damage_settings(raw.encoder, options.damage)]
        yield replace(raw, encoder=with_settings(in_profile(raw.encoder, options.profile), words)), tree.files


def _chosen(sources_of: SourcesOf, tree: RawTree, options: JobOptions) -> Dataset:
    """The chosen splits. Where files are missing they are listed twice, as a folder may have been away for a moment."""
    whole = dataset_in(tree, sources_of)
    raw = whole.only(options.splits)
    if raw.doubt and not options.as_is:
        raise DatasetError(f"{raw.name}: {raw.doubt}. If this is meant, add --as-is (as_is=True)")
    if any(raw.missing.values()) and dataset_in(tree, sources_of) != whole:
        raise OutageError(
            f"{raw.name}: other files are below {tree.root} each time that they are listed; wait until nothing changes "
            "there and run the same command again"
        )
    return raw


def dataset_in(tree: RawTree, sources_of: SourcesOf) -> Dataset:
    """The dataset that a function finds in a tree. Its messages name the root.

    Raises DatasetError for sources that are not below it, as lists and links may name them.
    """
    found = _found(tree, sources_of)
    _check_reach(tree, found)
    return found


def _found(tree: RawTree, sources_of: SourcesOf) -> Dataset:
    reading = declared(sources_of)
    if not isinstance(tree.files, UrlFiles):
        if not tree.archives or reading.in_archives is None:
            return sources_of(tree.folder)
        return _from_archives(tree, sources_of, reading.in_archives)
    if reading.reads_media:
        raise DatasetError(
            f"{reading.name} reads its files to list its sources; copy {tree.root} to a local disk first"
        )
    try:
        return sources_of(tree.folder).at(tree.root, instead_of=tree.folder)
    except (DatasetError, OutageError) as error:
        raise type(error)(str(error).replace(str(tree.folder), tree.root)) from error


def _from_archives(tree: RawTree, sources_of: SourcesOf, lists: frozenset[str]) -> Dataset:
    """The dataset as if the archives were unpacked; files with the suffixes `lists` are."""
    with closing(Scratch()) as scratch:
        unpacked = ArchivedTree.make(tree.folder, tree.archives, scratch.folder, lists, damaged=tree.damaged)
        try:
            return _with_real_paths(sources_of(unpacked.folder), unpacked)
        except (DatasetError, OutageError) as error:
            told = str(error).replace(str(unpacked.folder), tree.root)
            raise type(error)(f"{told} ({_archives_told(tree)})") from error


def _archives_told(tree: RawTree) -> str:
    """Which archives count as unpacked."""
    names = [archive.relative_to(tree.folder).as_posix() for archive in tree.archives]
    return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''} count as unpacked"


def _with_real_paths(found: Dataset, tree: ArchivedTree) -> Dataset:
    """A dataset that was found in a tree, with the paths that its files really have. Each of its splits has a reject
    for each archive that is damaged, for any could have had what is lost.
    """

    def real(source: Source) -> Source:
        return replace(source, path=tree.real(source.path), parts=tuple(map(tree.real, source.parts)))

    splits = {split: [*map(real, sources)] for split, sources in found.splits.items()}
    told = found.at(str(tree.root), instead_of=tree.folder)
    lost = [Reject(source=name, stage=ARCHIVE, reason=f"is damaged ({what})") for name, what in tree.damage.items()]
    missing = {split: [*found.missing.get(split, []), *lost] for split in splits} if lost else found.missing
    return replace(told, splits=splits, missing=missing, doubt=told.doubt or _unpacked_too(splits))


def _unpacked_too(splits: Mapping[str, list[Source]]) -> str:
    """What makes sources doubtful: that files of the same name and size are in archives and unpacked elsewhere."""
    packed: dict[tuple[str, int], Path] = {}
    plain: list[Path] = []
    for path in (source.path for sources in splits.values() for source in sources):
        if (found := archive_and_name(path)) is None:
            plain.append(path)
        else:
            packed[path.name, members_of(found[0], damaged=True)[found[1]].size_bytes] = path
    for path in plain if packed else ():
        if path.is_file() and (other := packed.get((path.name, path.stat().st_size))) is not None:
            return f"{path} is unpacked, and in {other} too; move the archives away, or what was unpacked"
    return ""


def _check_reach(tree: RawTree, found: Dataset) -> None:
    """Raise DatasetError for sources whose files lie outside of the root, links and `..` resolved."""
    packed = isinstance(tree.files, ArchivedFiles)
    if tree.outside_root and not packed:
        return
    files, reach = _files_of(found), Reach(tree.folder)
    strange = set(_outside(tree, files, reach) if packed else reach.outside(files))
    if not strange:
        return
    sources = (source for split in found.splits.values() for source in split)
    first = next(source for source in sources if strange.intersection(source.files))
    path = next(path for path in first.files if path in strange)
    remedy = "Move them there; or, if you trust who made the list, add --outside-root (outside_root=True)"
    if is_url(tree.root):
        remedy = "Take them out of the list"
    raise DatasetError(
        f"{found.name}: {len(strange)} files of its sources are not below {tree.root}, such as {path} of {first.id!r}: "
        f"a list or a link leads out. {remedy}"
    )


def _outside(tree: RawTree, paths: Iterable[Path], reach: Reach) -> Iterator[Path]:
    """Those of the paths, also of members of archives, that lead where they may not."""
    for path in paths:
        packed = archive_and_name(path) if _IN_ARCHIVE in os.fspath(path) else None
        archive, name = packed or (path, path.name)
        if (packed and not stays_inside(name)) or not (tree.outside_root or reach.has(archive)):
            yield path


def _files_of(found: Dataset) -> list[Path]:
    """The files of all sources; there may be millions."""
    sources = [source for split in found.splits.values() for source in split if not source.computed]
    return [source.path for source in sources] + [path for source in sources if source.parts for path in source.parts]
