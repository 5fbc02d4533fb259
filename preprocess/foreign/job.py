"""The job that indexes tars of other programs, without changing them, into a split that maskstream reads.

The indexed component is `video` or `sound`, and the word `ending` is the member's ending, so a loader never chooses
among containers per sample.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...shards.errors import DatasetError, StoreError, UnlistedError
from ...shards.format.columns import FORMAT
from ...shards.format.dataset import DATASET_JSON, FOREIGN, MAX_JSON_BYTES, finish_split
from ...shards.format.records import Records
from ...shards.format.sample import DatasetInfo
from ...shards.stores.elsewhere import joined
from ...shards.stores.location import is_url, opened
from ...shards.stores.output import Location, Output, folder_and_name, last_parts, output_at
from ..encode.limits import Limits
from ..executors.base import Executor
from ..executors.local import executor_of
from ..job.judge import PAUSES_S
from ..job.ledger import run_tasks
from ..job.libraries import InEnvironment, libraries
from ..job.progress import Progress
from .collected import Collected
from .indexer import Indexer, indexer_of
from .label_table import LabelTable
from .tar_file import TarFile
from .task import IndexedTar, TarTask, index_tar, sidecars

_PACKED = (".gz", ".tgz", ".zst", ".bz2", ".xz")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What was indexed: the split's folder, the numbers of tars with samples and of samples, and rejects by stage.

    without_label: how many samples the table of labels does not name; None without a table.
    """

    folder: Location
    tars: int
    samples: int
    rejects: dict[str, int]
    without_label: int | None = None


def index_tars(
    tars: Sequence[Location],
    out: Location | None = None,
    *,
    modality: str | None = None,
    labels: str | Path | None = None,
    match: str | None = None,
    as_is: bool = False,
    fast: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    limits: Limits | None = None,
    pauses_s: Sequence[float] = PAUSES_S,
    progress: Progress | None = None,
) -> IndexReport:
    """Write a manifest, rejects.parquet and dataset.json, and an idx and a packets file per tar, into `out`.

    tars: files, or folders of them, on a disk or at URLs; they are read once and never written. out: by default the
    folder of the tars; an index in another folder names tars at URLs by these. modality: "video" or "audio", by default
    that of the first sample. Every entry point of a video is decoded and compared with a full decode, unless `fast` is
    set; those of a sound always are. Samples that cannot be used become rows of rejects.parquet. The tasks run in
    `executor`, by default `LocalExecutor(workers)`; the result does not depend on it. A stopped run continues: indexed
    tars that have not changed are not read again.

    labels: a csv file beside the tars, such as Kinetics' train.csv, whose labels come before those in the tars. It has
    the column `label`, and `match` (by default key, id, video_id, youtube_id, path, file, filename or wav), which names
    a sample by the last part of its key. Samples of which none has a label are an error, unless `as_is` says that this
    is meant; the tars are not read again then.

    `limits` says what a sample may cost (pixels, frames, time, memory); one that costs more, or that crashes a worker
    process twice, becomes a row of rejects.parquet too. A tar that cannot be read is tried again after each of
    `pauses_s` (seconds); then OutageError ends the run, which continues when it is started again.

    Raises ValueError if tars are missing or compressed, are in several folders without `out`, share a name, or hold
    several modalities without `modality`, and if `out` holds shards of maskstream; DatasetError if no tar holds a
    usable sample, or no sample has a label; OutageError if a tar cannot be read; ResumeError if a run with other
    settings was stopped in `out`; BusyError if another run writes to it.
    """
    if match is not None and labels is None:
        raise ValueError("match names a column of labels; give both")
    executor = executor_of(executor, workers)
    table = None if labels is None else LabelTable.read(Path(labels), match)
    found = _found(tars)
    output = output_at(_folder(found, out))
    with output.sole_writer():
        _check_kind(output)
        work = _Work(indexer_of([TarFile(tar) for tar in found], modality), fast, limits or Limits(), tuple(pauses_s))
        return _index(found, output, work, table, executor, progress or Progress(), as_is=as_is)


@dataclass(frozen=True, slots=True)
class _Work:
    """How all tars of a job are indexed."""

    indexer: Indexer
    fast: bool
    limits: Limits
    pauses_s: tuple[float, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which samples are used."""
        return {"fast": self.fast, "limits": self.limits.to_dict(defaults=True)}

    def task(self, out: Location, name: str) -> TarTask:
        """The task of a tar."""
        return TarTask(
            out=out,
            name=name,
            modality=self.indexer.name,
            check=not self.fast,
            limits=self.limits,
            pauses_s=self.pauses_s,
        )


def _index(
    tars: Sequence[Location],
    output: Output,
    work: _Work,
    table: LabelTable | None,
    executor: Executor,
    progress: Progress,
    *,
    as_is: bool,
) -> IndexReport:
    names = sorted(_name(tar, output) for tar in tars)
    tasks = [work.task(output.location, name) for name in names]
    environment = libraries(work.indexer.name)
    settings = {"format": FORMAT, "index": work.indexer.name, **work.settings, "libraries": environment}
    records = Records(output, IndexedTar)
    records.begin(settings)
    output.remove([DATASET_JSON])
    output.remove_leftovers()
    try:
        checked = InEnvironment(index_tar, work.indexer.name, environment)
        run_tasks(executor, checked, tasks, records, progress, phase="index", unit="tars")
    finally:
        output.remove_leftovers()  # of processes that were killed in this run
    collected = Collected.of(tasks, records, table)
    if collected.samples and collected.unlabelled and not as_is:
        raise DatasetError(
            f"none of the {collected.samples} samples has a label, in `json` or `cls`; give the list that has them "
            "with --labels train.csv (labels=). If this is meant, add --as-is (as_is=True)"
        )
    try:
        report = _finished(output, work, collected)
    except DatasetError:
        if table is None:
            records.discard()  # another modality may be tried
        raise
    records.discard()
    return report


def _finished(output: Output, work: _Work, collected: Collected) -> IndexReport:
    """Write the files that make the folder a split. Raises DatasetError if no tar holds a usable sample."""
    rejects = collected.rejects
    if not collected.samples:
        example = f", for example {rejects[0].source}: {rejects[0].reason}" if rejects else ""
        raise DatasetError(f"{len(collected.tasks)} tars hold no usable {work.indexer.noun}{example}")
    output.remove([name for tar in collected.empty for name in sidecars(tar)])
    name = last_parts(output.location if is_url(output.location) else Path(output.location).resolve(), 1)
    info = DatasetInfo(
        dataset=name,
        split=name,
        modality=work.indexer.name,
        profile=FOREIGN,
        label_names=collected.label_names,
        settings=work.settings,
    )
    finish_split(output, info, collected.shards(output), rejects)
    return IndexReport(
        folder=output.location if is_url(output.location) else Path(output.location),
        tars=len(collected.tasks) - len(collected.empty),
        samples=collected.samples,
        rejects=dict(sorted(Counter(reject.stage for reject in rejects).items())),
        without_label=None if collected.table is None else collected.samples - collected.named,
    )


def _found(tars: Sequence[Location]) -> list[Location]:
    """The tars, and those in the folders. Raises ValueError for what is missing or cannot be indexed together."""
    if odd := [tar for tar in tars if str(tar).startswith("pipe:")]:
        raise ValueError(f"{odd[0]}: tars are read, and no output of commands")
    far = sorted({url for tar in tars if is_url(tar) for url in _at_url(str(tar).rstrip("/"))})
    own = [Path(tar) for tar in tars if not is_url(tar)]
    paths = [path for tar in own for path in (sorted(tar.glob("*.tar")) if tar.is_dir() else [tar])]
    if missing := [path for path in paths if not path.is_file()]:
        raise ValueError(
            f"there is no file {missing[0]} ({len(missing)} of {len(paths)} are missing); give tars, or their folder"
        )
    if packed := [one for one in (*paths, *far, *_packed_in(own if not paths else [])) if _is_packed(str(one))]:
        raise ValueError(
            f"{packed[0]} is compressed as one, but loaders read a part of a tar at its place. `gunzip` makes a plain "
            ".tar of it, which is hardly larger, for videos and sounds are compressed already; or use `maskstream "
            "shards`, which reads it as it is"
        )
    if not paths and not far:
        raise ValueError(f"there is no *.tar in {', '.join(map(str, tars)) or 'no folder'}; give tars, or their folder")
    near = sorted({path.parent.resolve() / path.name for path in paths})
    found: list[Location] = [*near, *far]
    for stem, count in Counter(PurePosixPath(tar).stem for tar in found).items():
        if count > 1:
            raise ValueError(f"{count} tars are named {stem!r}; index them into different folders, or rename them")
    if odd := [tar for tar in found if not str(tar).endswith(".tar")]:
        raise ValueError(f"{odd[0]} does not end in .tar; rename it if it is one")
    return found


def _is_packed(name: str) -> bool:
    return name.lower().endswith(_PACKED)


def _packed_in(places: Sequence[Path]) -> list[Path]:
    """The compressed tars in folders."""
    return [path for place in places if place.is_dir() for path in sorted(place.iterdir()) if _is_packed(path.name)]


def _at_url(url: str) -> list[str]:
    """A tar, or the tars in a folder. Raises ValueError if there are none, or the server lists no files."""
    if url.endswith(".tar") or _is_packed(url):
        return [url]
    try:
        names = opened(url).names()
    except UnlistedError as error:
        raise ValueError(f"{url} is on a web server, which lists no files; give the URLs of its tars") from error
    found = [f"{url}/{name}" for name in names if name.endswith(".tar") and "/" not in name]
    if not found:
        raise ValueError(f"there is no *.tar in {url}; give tars, or their folder")
    return found


def _folder(tars: Sequence[Location], out: Location | None) -> Location:
    """The folder of the index. Raises ValueError if it cannot be told, or cannot name a tar."""
    folders = sorted({folder_and_name(tar)[0] for tar in tars}, key=str)
    if out is None and len(folders) > 1:
        raise ValueError(f"the tars are in {len(folders)} folders, such as {folders[0]} and {folders[1]}; give --out")
    folder = folders[0] if out is None else out
    if is_url(folder) and (near := [tar for tar in tars if not is_url(tar)]):
        raise ValueError(f"{near[0]} cannot be read by those who read {folder}; give --out a local folder")
    try:
        output_at(folder)
        for place in {folder_and_name(tar)[0] for tar in tars if is_url(tar)}:
            joined(str(folder), str(place))
    except (ValueError, StoreError) as error:
        raise ValueError(f"{error}; give another --out") from error
    return folder


def _name(tar: Location, output: Output) -> str:
    """How the split names a tar: by its path from the folder, or by its URL if it is elsewhere."""
    if not is_url(tar):
        return Path(os.path.relpath(tar, Path(output.location).resolve())).as_posix()
    folder, name = folder_and_name(tar)
    return name if folder == output.location else str(tar)


def _check_kind(output: Output) -> None:
    """Raise ValueError if the folder holds shards, which an index would replace."""
    try:
        data = output.whole(DATASET_JSON, MAX_JSON_BYTES)
        profile = FOREIGN if data is None else json.loads(data)["profile"]  # every version of the format has it
    except (StoreError, ValueError, KeyError, TypeError):
        profile = "another"
    if profile != FOREIGN:
        raise ValueError(f"{output.location} holds shards of the profile {profile!r}, not an index; give another --out")
