"""The job that turns raw data into verified splits of shards.

1. A dataset's function lists the sources (`datasets/`). It is asked about a tree of raw data, and looks at names, sizes
   and lists only; so raw data at a URL or in archives are shown to it as files without contents (`raw/tree.py`).
2. `plan` assigns the sources to shards. It is a pure function of the list and the settings.
3. An executor (`executors/`) runs one task per shard: it encodes the sources and writes the tar (`task`).
4. The driver (`ledger`) adds a record of each written shard and its sources to the split (`split`), so an interrupted
   run continues where it stopped, and a changed source is noticed.
5. The job writes manifest, rejects and dataset.json, reads everything back and compares it.

The bytes are the same for any number of workers, parts and machines, and after any number of interruptions.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets import Dataset, chosen_dataset
from maskstream.preprocess.datasets.dataset import declared
from maskstream.preprocess.datasets.division import TRAIN, VAL, divide_sources
from maskstream.preprocess.encode.encoder import (
    KEEP,
    Encoder,
    damage_settings,
    in_profile,
    list_attached_files,
    prepared,
    with_settings,
)
from maskstream.preprocess.encode.limits import Limits
from maskstream.preprocess.executors.base import Executor
from maskstream.preprocess.executors.local import choose_executor
from maskstream.preprocess.raw.archive_list import list_members
from maskstream.preprocess.raw.files import RawFiles, UrlFiles
from maskstream.preprocess.raw.scratch import Scratch
from maskstream.preprocess.raw.tree import MARK, ArchivedFiles, ArchivedTree, RawTree, open_raw_tree, split_archive_path
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.sample import DatasetInfo, Reject
from maskstream.shards.keywords import takes_fields
from maskstream.shards.named import list_few
from maskstream.shards.progress import Progress
from maskstream.shards.reach import Reach, is_inside
from maskstream.shards.stores.output import Location, open_output, within
from maskstream.shards.stores.url import is_url

from .clips import Cut, Cutter
from .cutting import Cutting, describe_cutting
from .ledger import run_splits
from .options import JobOptions
from .plan import JobPart, default_samples_per_shard, describe_job, plan
from .report import ARCHIVE
from .scan import CLIPS, forget_kept
from .split import SplitJob
from .task import write_task

_IN_ARCHIVE = f"{MARK}/"

SourcesOf = Callable[[Path], Dataset]


@contextmanager
def listed(
    dataset: str | SourcesOf,
    root: str | Path,
    options: JobOptions,
    decided: Mapping[str, str] | None = None,
    cut: Cut | None = None,
) -> Iterator[tuple[Dataset, RawFiles]]:
    """The chosen splits of a dataset with the encoder that the options ask for, and where its files are during the
    block. decided: the splits of sources that are in train or val already, by id, where train is divided. cut: makes
    clips of the files.

    Raises ValueError for settings that neither has, DatasetError if splits or labels are doubtful, unless this is
    wanted, and for splits without any file.
    """
    sources_of, words = chosen_dataset(dataset, options.settings)
    lists = declared(sources_of).in_archives or ()
    with open_raw_tree(root, lists=lists, outside_root=options.outside_root, damaged=options.damage == KEEP) as tree:
        raw = _choose_splits(sources_of, tree, options, decided)
        words = [*words, *damage_settings(raw.encoder, options.damage)]
        raw = replace(raw, encoder=with_settings(in_profile(raw.encoder, options.profile), words))
        yield raw if cut is None else cut(raw, tree.folder, tree.files), tree.files


def _choose_splits(
    sources_of: SourcesOf, tree: RawTree, options: JobOptions, decided: Mapping[str, str] | None
) -> Dataset:
    """The chosen splits. Where files are missing they are listed twice, as a folder may have been away for a moment."""
    whole = find_dataset(tree, sources_of)
    if options.division is None:
        raw = whole.only(options.splits)
    else:
        raw = divide_sources(whole, options.division, decided).only(options.splits)
    if raw.doubt and not options.as_is:
        raise DatasetError(f"{raw.name}: {raw.doubt}. If this is meant, add --as-is (as_is=True)")
    if any(raw.missing.values()) and find_dataset(tree, sources_of) != whole:
        raise OutageError(
            f"{raw.name}: other files are below {tree.root} each time that they are listed; wait until nothing changes "
            "there and run the same command again"
        )
    return raw


def find_dataset(tree: RawTree, sources_of: SourcesOf) -> Dataset:
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
            raise type(error)(f"{told} ({_describe_archives(tree)})") from error


def _describe_archives(tree: RawTree) -> str:
    """Which archives count as unpacked."""
    names = [archive.relative_to(tree.folder).as_posix() for archive in tree.archives]
    return f"{list_few(names)} count as unpacked"


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
    return replace(told, splits=splits, missing=missing, doubt=told.doubt or _explain_unpacked_too(splits))


def _explain_unpacked_too(splits: Mapping[str, list[Source]]) -> str:
    """What makes sources doubtful: that files of the same name and size are in archives and unpacked elsewhere."""
    packed: dict[tuple[str, int], Path] = {}
    plain: list[Path] = []
    for path in (source.path for sources in splits.values() for source in sources):
        if (found := split_archive_path(path)) is None:
            plain.append(path)
        else:
            packed[path.name, list_members(found[0], damaged=True)[found[1]].size_bytes] = path
    for path in plain if packed else ():
        if path.is_file() and (other := packed.get((path.name, path.stat().st_size))) is not None:
            return f"{path} is unpacked, and in {other} too; move the archives away, or what was unpacked"
    return ""


def _check_reach(tree: RawTree, found: Dataset) -> None:
    """Raise DatasetError for sources whose files lie outside of the root, links and `..` resolved."""
    packed = isinstance(tree.files, ArchivedFiles)
    if tree.outside_root and not packed:
        return
    files, reach = _list_source_files(found), Reach(tree.folder)
    strange = set(_find_outside(tree, files, reach) if packed else reach.outside(files))
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


def _find_outside(tree: RawTree, paths: Iterable[Path], reach: Reach) -> Iterator[Path]:
    """Those of the paths, also of members of archives, that lead where they may not."""
    for path in paths:
        packed = split_archive_path(path) if _IN_ARCHIVE in os.fspath(path) else None
        archive, name = packed or (path, path.name)
        if (packed and not is_inside(name)) or not (tree.outside_root or reach.has(archive)):
            yield path


def _list_source_files(found: Dataset) -> list[Path]:
    """The files of all sources; there may be millions."""
    sources = [source for split in found.splits.values() for source in split if not source.computed]
    return [source.path for source in sources] + [path for source in sources if source.parts for path in source.parts]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """A split after a run. `state` is "written", "continued" or "already finished"; `counts` as in dataset.json. After
    a part, it is "part I/N written", and `counts` has the number of its shards and how many of them this run wrote.
    """

    folder: Location
    state: str
    counts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobReport:
    """What a run did: its splits by name, the number of sources it encoded, and its duration in seconds."""

    dataset: str
    profile: str
    splits: dict[str, SplitReport]
    n_sources: int
    wall_s: float


@takes_fields(JobOptions)
def make_shards(
    dataset: str | Callable[[Path], Dataset],
    root: str | Path,
    out: Location,
    options: JobOptions,
) -> JobReport:
    """Turn the raw data of `dataset` below `root` into shards, one folder per split below `out`. Both are paths, or the
    URLs of folders in object stores (docs/scaling.md); `root` may also be that of one on a web server.

    `dataset` is a name in `DATASETS`, a dataset function, or the `package.module:name` of one. The fields of `options`
    may be given as keyword arguments: profile, settings, workers, samples_per_shard, limits, max_rejects, ...

    A stopped run continues. A finished split with the same settings is left as it is. Other settings, and sources that
    changed, raise ResumeError. If more than the share `max_rejects` of the listed sources is rejected or missing, the
    split is not finished, and the run ends with DatasetError; a run with a larger share then uses what is written.

    A source that passes a limit, or crashes a worker process twice, is a reject. Processes are needed for that: with
    `workers=0` nothing limits time and memory, and a crash ends this process. A source that cannot be read is no
    reject: it is tried again after each of `pauses_s`; then OutageError ends the run, which continues when it is
    started again.

    Several machines share a job in parts, which run at the same time and in any order; the next runs may have another
    number of parts. `finish` then writes manifest, rejects and dataset.json and verifies; it encodes nothing, and
    raises UnfinishedError if shards are missing. A run of neither kind does what is left of the job by itself.

    Every process must have the job's libraries (`libraries.py`); one with others raises ResumeError and writes nothing.

    Raises ValueError for wrong arguments; DatasetError if the raw data do not have the published layout, a split is
    listed of which no file is there (unless others are named), splits or labels are doubtful, an archive is damaged, or
    sources are not below `root`; BusyError if another run writes to the same folder, and ShardError if the shards do
    not read back as they were written.
    """
    open_output(out)  # raises ValueError before any work
    executor = choose_executor(options.executor, options.workers)
    progress = options.progress or Progress()
    start_s = time.monotonic()
    with ExitStack() as stack, _report_memory():
        cut = None if options.cutting is None else _choose_cutter(options.cutting, out, executor, progress, options)
        raw, files = stack.enter_context(listed(dataset, root, options, cut=cut))
        if raw.passed_over:
            progress.say(_describe_passed_over(raw))
        encoder = prepared(raw.encoder, raw.splits)
        jobs = {name: _split_job(raw, name, within(out, name), encoder, files, options) for name in raw.splits}
        todo = _list_todo(jobs, stack, options)
        for split in todo.values() if options.finish else ():
            split.check_written()
        for split in todo.values():
            split.begin()
        if not options.finish:
            run_splits(executor, write_task, raw.modality, [*todo.values()], progress, phase="encode", unit="sources")
        for split in todo.values() if options.part is None else ():
            split.finish()
            split.verify(executor, progress)
        if options.cutting is not None and options.part is None:
            forget_kept(open_output(out))
    return JobReport(
        dataset=raw.name,
        profile=encoder.profile,
        splits={name: _report(split, options.own, written=name in todo) for name, split in jobs.items()},
        n_sources=sum(split.n_sources for split in jobs.values()),
        wall_s=time.monotonic() - start_s,
    )


def _describe_passed_over(raw: Dataset) -> str:
    """The message for files in formats that the dataset does not read, the most frequent suffixes first."""
    kinds = sorted(raw.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
    named = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in kinds[:8])
    return f"{raw.name} does not read {sum(raw.passed_over.values())} files: {named}{', ...' if kinds[8:] else ''}"


def _choose_cutter(clips: Cutting, out: Location, executor: Executor, progress: Progress, options: JobOptions) -> Cut:
    """What cuts files into clips. With `overwrite` nothing that was found before counts."""
    output = open_output(out)
    if options.overwrite:
        output.remove(output.names(CLIPS))
    limits, pauses_s = options.limits or Limits(), tuple(options.pauses_s)
    return Cutter(
        clips=clips,
        output=output,
        executor=executor,
        progress=progress,
        part=options.own,
        limits=limits,
        pauses_s=pauses_s,
    ).cut


def find_largest_split(dataset: str, root: str | Path, options: JobOptions) -> int:
    """How many shards the largest of the chosen splits has; more parts than that have nothing to do. Of files that are
    cut into clips, how many files, for clips are not known yet. Raises as `make_shards`.
    """
    with listed(dataset, root, options) as (raw, _):
        sizes = [len(sources) for sources in raw.splits.values()]
    if options.cutting is not None:
        return max(sizes, default=0)
    return max(
        (-(-size // (options.samples_per_shard or default_samples_per_shard(size))) for size in sizes), default=0
    )


def _split_job(
    raw: Dataset, name: str, folder: Location, encoder: Encoder, files: RawFiles, options: JobOptions
) -> SplitJob:
    """The job of the split `name`: its description and its tasks."""
    sources, limits = raw.splits[name], options.limits or Limits()
    size = options.samples_per_shard or default_samples_per_shard(len(sources))
    info = DatasetInfo(
        dataset=raw.name,
        split=name,
        modality=raw.modality,
        profile=encoder.profile,
        label_names=raw.label_names,
        settings=describe_job(sources, encoder, size, limits)
        | ({"val": options.division.to_dict()} if options.division and name in (TRAIN, VAL) else {})
        | ({"keep": options.keep.text} if options.keep else {})
        | ({"signals": options.measure.version} if options.measure else {})
        | ({"clips": describe_cutting(options.cutting)} if options.cutting else {}),
    )
    tasks = plan(
        raw.name, folder, sources, encoder, size, limits, options.pauses_s, files, options.keep, options.measure
    )
    return SplitJob(folder, info, tasks, raw.missing.get(name, []), list_attached_files(encoder), options)


@contextmanager
def _report_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutageError(
            f"memory ran out ({error or 'no more could be had'}); free some, use fewer workers, and run the same "
            "command again, which continues (leave out --overwrite)"
        ) from error


def _list_todo(splits: dict[str, SplitJob], stack: ExitStack, options: JobOptions) -> dict[str, SplitJob]:
    """The splits that are not finished, or all with `overwrite`. Each is locked until `stack` releases the locks; that
    of a part jointly with the runs of other parts, whose temporary files stay.
    """
    todo = {}
    for name, split in splits.items():
        if not options.overwrite and split.is_finished():
            continue
        stack.enter_context(split.output.joint_writer() if options.part else split.output.sole_writer())
        if options.overwrite or not split.output.is_locked or not split.is_finished():  # it may be now
            todo[name] = split
    return todo


def _report(split: SplitJob, part: JobPart | None, *, written: bool) -> SplitReport:
    if part is not None and written:
        counts = {"shards": len(split.own), "shards_written": split.written}
        return SplitReport(folder=split.folder, state=f"part {part} written", counts=counts)
    state = ("continued" if split.written < len(split.tasks) else "written") if written else "already finished"
    return SplitReport(folder=split.folder, state=state, counts=split.counts())
