"""Tars that others wrote, untouched, to a split that every part of maskstream reads."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...shards.errors import DatasetError
from ...shards.format.columns import FORMAT
from ...shards.format.dataset import DATASET_JSON, FOREIGN, finish_split
from ...shards.format.idx import idx_text
from ...shards.format.journal import Journal
from ...shards.format.record import Row, ShardRecord
from ...shards.format.sample import DatasetInfo, Reject
from ...shards.media.packet_table import beside, packets_path
from ...shards.stores.block_sums import SUMS
from ...shards.stores.publish import publishing, remove_leftovers
from ...shards.stores.sole_writer import sole_writer
from ..executors.base import Executor
from ..executors.local import executor_of
from ..ledger import libraries, run_tasks
from ..progress import Progress
from .indexer import Indexer, indexer_of
from .labels import Label, numbered
from .task import IndexedTar, TarTask, index_tar


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What was indexed: the folder of the split, tars with samples, samples, and rejects by stage."""

    folder: Path
    tars: int
    samples: int
    rejects: dict[str, int]


def index_tars(
    tars: Sequence[Path],
    out: Path | None = None,
    *,
    modality: str | None = None,
    fast: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """Write manifest.parquet, rejects.parquet, dataset.json, and per tar an idx and a packets file, into `out`.

    tars: files, or folders whose tars are taken; they are read once and never written. out: by default the folder in
    which all of them lie. modality: "video" or "audio", by default what the first sample holds. Each place where
    decoding of a video may begin is tried and compared with a plain decode, unless `fast`; of a sound it always is.
    What cannot be used is a row in rejects.parquet. The tars are read in `executor`, by default in
    `LocalExecutor(workers)`; the result does not depend on it. A run that was stopped goes on: tars that are indexed
    and unchanged are not read again.

    Raises ValueError for tars that are missing, lie in several folders without `out`, share a name, or hold several
    modalities without `modality`, and for an `out` with shards that maskstream wrote; DatasetError where no tar holds a
    usable sample; ResumeError where a run with other settings was stopped in `out`; BusyError where another run writes
    to it.
    """
    executor = executor_of(executor, workers)
    paths = _found(tars)
    folder = _folder(paths, out)
    with sole_writer(folder):
        return _index(paths, folder, indexer_of(paths, modality), fast, executor, progress or Progress())


def _index(
    paths: Sequence[Path], folder: Path, modality: Indexer, fast: bool, executor: Executor, progress: Progress
) -> IndexReport:
    names = [Path(os.path.relpath(path, folder.resolve())).as_posix() for path in paths]
    tasks = [TarTask(out=folder, name=name, modality=modality.name, check=not fast) for name in names]
    settings = {"format": FORMAT, "index": modality.name, "fast": fast, "libraries": libraries()}
    with Journal(folder, settings, IndexedTar) as journal:
        (folder / DATASET_JSON).unlink(missing_ok=True)
        remove_leftovers(folder)
        done = run_tasks(executor, index_tar, tasks, journal, progress, phase="index", unit="tars")
        try:
            report = _finished(folder, modality, fast, [done[task.name] for task in tasks])
        except DatasetError:
            journal.discard()  # another modality may be tried
            raise
        journal.discard()
    return report


def _finished(folder: Path, modality: Indexer, fast: bool, tars: Sequence[IndexedTar]) -> IndexReport:
    """Write what makes the folder a split; DatasetError where no tar holds a usable sample."""
    shards, rejects, label_names = _merged(tars)
    if not shards:
        example = f"; such as {rejects[0].source}: {rejects[0].reason}" if rejects else ""
        raise DatasetError(f"no usable {modality.noun} in {len(tars)} tars{example}")
    for name in {tar.shard.name for tar in tars} - {shard.name for shard in shards}:
        for file in (packets_path(folder, name), beside(folder, name, SUMS)):
            file.unlink(missing_ok=True)
    for shard in shards:
        _write_idx(folder, shard)
    info = DatasetInfo(
        dataset=folder.resolve().name,
        split=folder.resolve().name,
        modality=modality.name,
        profile=FOREIGN,
        label_names=label_names,
        settings={"fast": fast},
    )
    finish_split(folder, info, shards, rejects)
    return IndexReport(
        folder=folder,
        tars=len(shards),
        samples=sum(len(shard.rows) for shard in shards),
        rejects=dict(sorted(Counter(reject.stage for reject in rejects).items())),
    )


def _found(tars: Sequence[Path]) -> list[Path]:
    paths = [path for tar in map(Path, tars) for path in (sorted(tar.glob("*.tar")) if tar.is_dir() else [tar])]
    if missing := [path for path in paths if not path.is_file()]:
        raise ValueError(
            f"no file {missing[0]} ({len(missing)} of {len(paths)} are missing); give tars, or their folder"
        )
    if not paths:
        raise ValueError(f"no *.tar in {', '.join(map(str, tars)) or 'nothing'}; give tars, or their folder")
    resolved = sorted({path.parent.resolve() / path.name for path in paths})
    for stem, count in Counter(path.stem for path in resolved).items():
        if count > 1:
            raise ValueError(f"{count} tars are called {stem!r}; index them into folders of their own, or rename them")
    if odd := [path for path in resolved if path.suffix != ".tar"]:
        raise ValueError(f"{odd[0]} does not end in .tar; unpack a compressed tar first, rename one that is not")
    return resolved


def _folder(paths: Sequence[Path], out: Path | None) -> Path:
    folders = sorted({path.parent for path in paths})
    if out is None and len(folders) > 1:
        raise ValueError(f"the tars lie in {len(folders)} folders, such as {folders[0]} and {folders[1]}; give --out")
    folder = out or folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DATASET_JSON).exists():
        try:
            profile = json.loads((folder / DATASET_JSON).read_bytes())["profile"]  # of any version of the format
        except (ValueError, KeyError, TypeError):
            profile = "another"
        if profile != FOREIGN:
            raise ValueError(f"{folder} holds shards of the profile {profile!r}, not an index; give another --out")
    return folder


def _merged(tars: Sequence[IndexedTar]) -> tuple[list[ShardRecord], list[Reject], tuple[str, ...]]:
    """Shards with labels, and all rejects: a key that an earlier tar has is one too."""
    taken: dict[str, str] = {}
    rejects = [reject for tar in tars for reject in tar.rejects]
    kept: list[tuple[ShardRecord, list[Row]]] = []
    labels: list[Label] = []
    for tar in tars:
        rows: list[Row] = []
        for row, label in zip(tar.shard.rows, tar.labels, strict=True):
            if row.key in taken:
                reason = f"its key stands in {taken[row.key]} too; every key of a split must be its own"
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
    with publishing(beside(folder, shard.name, ".idx")) as stream:
        stream.write(idx_text((row.key, row.spans) for row in shard.rows).encode())
