"""The job that turns raw data into verified splits of shards.

1. A dataset's function lists the sources (`datasets/`). It reads only names, sizes and lists, so raw data at a URL or
in archives are represented by empty files (`raw/tree.py`).
2. `plan` assigns the sources to shards. It is a pure function of the list and the settings.
3. An executor (`executors/`) runs one task per shard, which encodes the sources and writes the tar (`task`).
4. The driver (`ledger`) adds a record of each written shard and its sources to the split (`split`), so an interrupted
run resumes where it stopped, and changed sources are detected.
5. The job writes manifest, rejects and dataset.json, then reads everything back and compares it.

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
    """Provide the chosen splits of a dataset with their encoder, and the location of their files, during the block.

    Args:
        dataset: Name of the dataset, or function that lists its sources.
        root: Folder or URL of the raw data.
        options: Options of the job.
        decided: Split of each source that is already in train or val, by id, if train is divided.
        cut: Cuts the files into clips.

    Raises:
        ValueError: Neither the dataset nor the encoder has a setting.
        DatasetError: A split has no files, or splits or labels look wrong and `as_is` is False.
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
    """Return the chosen splits. If files are missing, they are listed again, as a folder may have been unmounted
    briefly.
    """
    whole = find_dataset(tree, sources_of)
    if options.division is None:
        raw = whole.only(options.splits)
    else:
        raw = divide_sources(whole, options.division, decided).only(options.splits)
    if raw.doubt and not options.as_is:
        raise DatasetError(f"{raw.name}: {raw.doubt}. If this is meant, add --as-is (as_is=True)")
    if any(raw.missing.values()) and find_dataset(tree, sources_of) != whole:
        raise OutageError(
            f"{raw.name}: the files below {tree.root} change each time they are listed; wait until nothing changes "
            "there and run the same command again"
        )
    return raw


def find_dataset(tree: RawTree, sources_of: SourcesOf) -> Dataset:
    """Return the dataset that a function finds in a tree. Error messages name the root.

    Raises:
        DatasetError: A source is outside the root, as named by a list or link.
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
    """Return the dataset as if the archives were unpacked; only files with the suffixes `lists` are extracted."""
    with closing(Scratch()) as scratch:
        unpacked = ArchivedTree.make(tree.folder, tree.archives, scratch.folder, lists, damaged=tree.damaged)
        try:
            return _with_real_paths(sources_of(unpacked.folder), unpacked)
        except (DatasetError, OutageError) as error:
            told = str(error).replace(str(unpacked.folder), tree.root)
            raise type(error)(f"{told} ({_describe_archives(tree)})") from error


def _describe_archives(tree: RawTree) -> str:
    """Describe the archives whose unpacked files also exist."""
    names = [archive.relative_to(tree.folder).as_posix() for archive in tree.archives]
    return f"{list_few(names)} count as unpacked"


def _with_real_paths(found: Dataset, tree: ArchivedTree) -> Dataset:
    """Replace the paths of a dataset found in a tree by the real ones.

    Each split gets a reject for every damaged archive, since it may have lost files.
    """

    def real(source: Source) -> Source:
        return replace(source, path=tree.real(source.path), parts=tuple(map(tree.real, source.parts)))

    splits = {split: [*map(real, sources)] for split, sources in found.splits.items()}
    told = found.at(str(tree.root), instead_of=tree.folder)
    lost = [Reject(source=name, stage=ARCHIVE, reason=f"is damaged ({what})") for name, what in tree.damage.items()]
    missing = {split: [*found.missing.get(split, []), *lost] for split in splits} if lost else found.missing
    return replace(told, splits=splits, missing=missing, doubt=told.doubt or _explain_unpacked_too(splits))


def _explain_unpacked_too(splits: Mapping[str, list[Source]]) -> str:
    """Describe why sources are doubtful: files of the same name and size are both in archives and unpacked
    elsewhere.
    """
    packed: dict[tuple[str, int], Path] = {}
    plain: list[Path] = []
    for path in (source.path for sources in splits.values() for source in sources):
        if (found := split_archive_path(path)) is None:
            plain.append(path)
        else:
            packed[path.name, list_members(found[0], damaged=True)[found[1]].size_bytes] = path
    for path in plain if packed else ():
        if path.is_file() and (other := packed.get((path.name, path.stat().st_size))) is not None:
            return f"{path} exists both unpacked and in {other}; move the archives or the unpacked files away"
    return ""


def _check_reach(tree: RawTree, found: Dataset) -> None:
    """Raise DatasetError for sources whose files are outside the root, after resolving links and `..`."""
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
    remedy = "Move them there; or add --outside-root (outside_root=True) if you trust the author of the list"
    if is_url(tree.root):
        remedy = "Remove them from the list"
    raise DatasetError(
        f"{found.name}: {len(strange)} source files are not below {tree.root}, such as {path} of {first.id!r}: a "
        f"list or a link points outside. {remedy}"
    )


def _find_outside(tree: RawTree, paths: Iterable[Path], reach: Reach) -> Iterator[Path]:
    """Yield the paths, including archive members, that lead outside the allowed folders."""
    for path in paths:
        packed = split_archive_path(path) if _IN_ARCHIVE in os.fspath(path) else None
        archive, name = packed or (path, path.name)
        if (packed and not is_inside(name)) or not (tree.outside_root or reach.has(archive)):
            yield path


def _list_source_files(found: Dataset) -> list[Path]:
    """Return the files of all sources; there may be millions."""
    sources = [source for split in found.splits.values() for source in split if not source.computed]
    return [source.path for source in sources] + [path for source in sources if source.parts for path in source.parts]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """Result of a run for a split.

    Attributes:
        folder: Path or URL of the split.
        state: "written", "continued" or "already finished"; after a part "part I/N written".
        counts: Counts as in dataset.json; after a part, its number of shards and how many of them this run wrote.
    """

    folder: Location
    state: str
    counts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobReport:
    """Result of a run.

    Attributes:
        dataset: Name of the dataset.
        profile: Name of the video profile.
        splits: Result for each split by name.
        n_sources: Number of sources that the run encoded.
        wall_s: Duration in seconds.
    """

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
    """Convert the raw data of `dataset` below `root` into shards, one folder per split below `out`.

    A stopped run resumes when it is started again. A finished split with the same settings is left unchanged.

    A source that exceeds a limit, or crashes a worker process twice, is rejected. This needs worker processes: with
    `workers=0`, time and memory are unlimited, and a crash ends this process. A source that cannot be read is not
    rejected but retried after each of `pauses_s`; then OutageError ends the run, which can be resumed.

    Several machines can share a job in parts, which run at the same time and in any order; later runs may use another
    number of parts. `finish` then writes manifest, rejects and dataset.json and verifies the shards; it does not
    encode. A run with neither option does all remaining work itself.

    Args:
        dataset: Name in `DATASETS`, dataset function, or its address `package.module:name`.
        root: Folder of the raw data, or its URL in an object store or on a web server.
        out: Folder of the output, or its URL in an object store (docs/scaling.md).
        options: Options of the job. Its fields can also be passed as keyword arguments: profile, settings, workers,
            samples_per_shard, limits, max_rejects, ...

    Returns:
        The result for each split.

    Raises:
        ValueError: An argument is not allowed.
        DatasetError: The raw data do not have the published layout, a listed split has no files (unless others are
            chosen), splits or labels look wrong, an archive is damaged, sources are outside `root`, or more than the
            fraction `max_rejects` of the sources was rejected or missing. In the last case, a run with a larger
            fraction reuses the written shards.
        ResumeError: The split was begun with other settings or sources, or a process has other libraries than the job
            (`libraries.py`). Nothing is written.
        OutageError: A source cannot be read.
        UnfinishedError: Shards are missing with `finish`.
        BusyError: Another run is writing to the same folder.
        ShardError: The shards do not read back as written.
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
    """Describe the files in formats that the dataset does not read, most frequent suffixes first."""
    kinds = sorted(raw.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
    named = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in kinds[:8])
    return f"{raw.name} does not read {sum(raw.passed_over.values())} files: {named}{', ...' if kinds[8:] else ''}"


def _choose_cutter(clips: Cutting, out: Location, executor: Executor, progress: Progress, options: JobOptions) -> Cut:
    """Return the function that cuts files into clips. `overwrite` discards the results of earlier scans."""
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
    """Return the number of shards of the largest chosen split; more parts than that would be idle.

    For files that are cut into clips it is the number of files, since clips are not known yet. Raises as `make_shards`
    does.
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
    """Return the job of the split `name`: its description and its tasks."""
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
            f"memory ran out ({error or 'allocation failed'}); free some memory, use fewer workers, and run the "
            "same command again to continue (without --overwrite)"
        ) from error


def _list_todo(splits: dict[str, SplitJob], stack: ExitStack, options: JobOptions) -> dict[str, SplitJob]:
    """Return the unfinished splits, or all with `overwrite`, and lock each until `stack` closes.

    A part shares its lock with runs of other parts, whose temporary files are kept.
    """
    todo = {}
    for name, split in splits.items():
        if not options.overwrite and split.is_finished():
            continue
        stack.enter_context(split.output.joint_writer() if options.part else split.output.sole_writer())
        if (
            options.overwrite or not split.output.is_locked or not split.is_finished()
        ):  # the last task may have finished it
            todo[name] = split
    return todo


def _report(split: SplitJob, part: JobPart | None, *, written: bool) -> SplitReport:
    if part is not None and written:
        counts = {"shards": len(split.own), "shards_written": split.written}
        return SplitReport(folder=split.folder, state=f"part {part} written", counts=counts)
    state = ("continued" if split.written < len(split.tasks) else "written") if written else "already finished"
    return SplitReport(folder=split.folder, state=state, counts=split.counts())
