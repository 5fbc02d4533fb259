"""The job that indexes tars of other programs, without changing them, into a split that maskstream reads."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...shards.errors import DatasetError
from ...shards.format.columns import FORMAT
from ...shards.format.dataset import DATASET_JSON, FOREIGN, finish_split
from ...shards.format.idx import idx_text
from ...shards.format.record import Row, ShardRecord
from ...shards.format.records import Records
from ...shards.format.sample import DatasetInfo, Reject
from ...shards.media.packet_table import PACKETS, sidecar
from ...shards.stores.block_sums import SUMS_OF
from ...shards.stores.location import local_path
from ...shards.stores.publish import publishing, remove_leftovers
from ...shards.stores.sole_writer import sole_writer
from ..executors.base import Executor
from ..executors.local import executor_of
from ..ledger import run_tasks
from ..libraries import InEnvironment, libraries
from ..limits import Limits
from ..progress import Progress
from ..retry import PAUSES_S
from .indexer import Indexer, indexer_of
from .labels import Label, numbered
from .task import IndexedTar, TarTask, index_tar


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What was indexed: the split's folder, the numbers of tars with samples and of samples, and rejects by stage."""

    folder: Path
    tars: int
    samples: int
    rejects: dict[str, int]


def index_tars(
    tars: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    modality: str | None = None,
    fast: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    limits: Limits | None = None,
    pauses_s: Sequence[float] = PAUSES_S,
    progress: Progress | None = None,
) -> IndexReport:
    """Write a manifest, rejects.parquet and dataset.json, and an idx and a packets file per tar, into `out`.

    tars: local files, or folders of them; they are read once and never written. out: by default the folder of the
    tars. modality: "video" or "audio", by default that of the first sample. Every entry point of a video is decoded and
    compared with a full decode, unless `fast` is set; those of a sound always are. Samples that cannot be used become
    rows of rejects.parquet. The tasks run in `executor`, by default `LocalExecutor(workers)`; the result does not
    depend on it. A stopped run continues: indexed tars that have not changed are not read again.

    `limits` says what a sample may cost (pixels, frames, time, memory); one that costs more, or that crashes a worker
    process twice, becomes a row of rejects.parquet too. A tar that cannot be read is tried again after each of
    `pauses_s` (seconds); then OutageError ends the run, which continues when it is started again.

    Raises ValueError if tars are missing, are in several folders without `out`, share a name, or hold several
    modalities without `modality`, and if `out` holds shards of maskstream; DatasetError if no tar holds a usable
    sample; OutageError if a tar cannot be read; ResumeError if a run with other settings was stopped in `out`;
    BusyError if another run writes to it.
    """
    executor = executor_of(executor, workers)
    paths = _found(tars)
    folder = _folder(paths, None if out is None else local_path(out, "out"))
    with sole_writer(folder):
        work = _Work(indexer_of(paths, modality), fast, limits or Limits(), tuple(pauses_s))
        return _index(paths, folder, work, executor, progress or Progress())


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

    def task(self, out: Path, name: str) -> TarTask:
        """The task of the tar at `out / name`."""
        return TarTask(
            out=out,
            name=name,
            modality=self.indexer.name,
            check=not self.fast,
            limits=self.limits,
            pauses_s=self.pauses_s,
        )


def _index(paths: Sequence[Path], folder: Path, work: _Work, executor: Executor, progress: Progress) -> IndexReport:
    names = [Path(os.path.relpath(path, folder.resolve())).as_posix() for path in paths]
    tasks = [work.task(folder, name) for name in names]
    environment = libraries(work.indexer.name)
    settings = {"format": FORMAT, "index": work.indexer.name, **work.settings, "libraries": environment}
    records = Records(folder, IndexedTar)
    records.begin(settings)
    (folder / DATASET_JSON).unlink(missing_ok=True)
    remove_leftovers(folder)
    try:
        checked = InEnvironment(index_tar, work.indexer.name, environment)
        run_tasks(executor, checked, tasks, records, progress, phase="index", unit="tars")
    finally:
        remove_leftovers(folder)  # of processes that were killed in this run
    try:
        report = _finished(folder, work, [tar for task in tasks if (tar := records.stands(task)) is not None])
    except DatasetError:
        records.discard()  # another modality may be tried
        raise
    records.discard()
    return report


def _finished(folder: Path, work: _Work, tars: Sequence[IndexedTar]) -> IndexReport:
    """Write the files that make the folder a split. Raises DatasetError if no tar holds a usable sample."""
    shards, rejects, label_names = _merged(tars)
    if not shards:
        example = f", for example {rejects[0].source}: {rejects[0].reason}" if rejects else ""
        raise DatasetError(f"{len(tars)} tars hold no usable {work.indexer.noun}{example}")
    for name in {tar.shard.name for tar in tars} - {shard.name for shard in shards}:
        for suffix in (PACKETS, *SUMS_OF.values()):
            sidecar(folder, name, suffix).unlink(missing_ok=True)
    for shard in shards:
        _write_idx(folder, shard)
    info = DatasetInfo(
        dataset=folder.resolve().name,
        split=folder.resolve().name,
        modality=work.indexer.name,
        profile=FOREIGN,
        label_names=label_names,
        settings=work.settings,
    )
    finish_split(folder, info, shards, rejects)
    return IndexReport(
        folder=folder,
        tars=len(shards),
        samples=sum(len(shard.rows) for shard in shards),
        rejects=dict(sorted(Counter(reject.stage for reject in rejects).items())),
    )


def _found(tars: Sequence[str | Path]) -> list[Path]:
    own = [local_path(tar, "tars") for tar in tars]
    paths = [path for tar in own for path in (sorted(tar.glob("*.tar")) if tar.is_dir() else [tar])]
    if missing := [path for path in paths if not path.is_file()]:
        raise ValueError(
            f"there is no file {missing[0]} ({len(missing)} of {len(paths)} are missing); give tars, or their folder"
        )
    if not paths:
        raise ValueError(f"there is no *.tar in {', '.join(map(str, tars)) or 'no folder'}; give tars, or their folder")
    resolved = sorted({path.parent.resolve() / path.name for path in paths})
    for stem, count in Counter(path.stem for path in resolved).items():
        if count > 1:
            raise ValueError(f"{count} tars are named {stem!r}; index them into different folders, or rename them")
    if odd := [path for path in resolved if path.suffix != ".tar"]:
        raise ValueError(f"{odd[0]} does not end in .tar; decompress it if it is compressed, else rename it")
    return resolved


def _folder(paths: Sequence[Path], out: Path | None) -> Path:
    folders = sorted({path.parent for path in paths})
    if out is None and len(folders) > 1:
        raise ValueError(f"the tars are in {len(folders)} folders, such as {folders[0]} and {folders[1]}; give --out")
    folder = out or folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DATASET_JSON).exists():
        try:
            profile = json.loads((folder / DATASET_JSON).read_bytes())["profile"]  # every version of the format has it
        except (ValueError, KeyError, TypeError):
            profile = "another"
        if profile != FOREIGN:
            raise ValueError(f"{folder} holds shards of the profile {profile!r}, not an index; give another --out")
    return folder


def _merged(tars: Sequence[IndexedTar]) -> tuple[list[ShardRecord], list[Reject], tuple[str, ...]]:
    """The shards with labels, all rejects, and the label names. A key that an earlier tar holds becomes a reject."""
    taken: dict[str, str] = {}
    rejects = [reject for tar in tars for reject in tar.rejects]
    kept: list[tuple[ShardRecord, list[Row]]] = []
    labels: list[Label] = []
    for tar in tars:
        rows: list[Row] = []
        for row, label in zip(tar.shard.rows, tar.labels, strict=True):
            if row.key in taken:
                reason = f"its key is in {taken[row.key]} too; keys must be unique within a split"
                rejects.append(Reject(source=row.source, stage="tar", reason=reason))
                continue
            taken[row.key] = tar.shard.name
            rows.append(row)
            labels.append(label)
        if rows:
            kept.append((tar.shard, rows))
        elif not tar.rejects:
            rejects.append(Reject(source=tar.shard.name, stage="tar", reason="holds no sample"))
    numbers, names = numbered(labels)
    label_of = iter(numbers)
    shards = [replace(record, rows=tuple(replace(row, label=next(label_of)) for row in rows)) for record, rows in kept]
    return shards, rejects, names


def _write_idx(folder: Path, shard: ShardRecord) -> None:
    with publishing(sidecar(folder, shard.name, ".idx")) as stream:
        stream.write(idx_text((row.key, row.spans) for row in shard.rows).encode())
