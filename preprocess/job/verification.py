"""Verify a split with one executor task per shard, or repair it without its sources.

The report does not depend on where the tasks run. A split below 64 MB is read in the calling process. A repair rewrites
files that can be reproduced from the tars and records of a split.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from maskstream.preprocess.executors.base import Attempt, Executor, Report
from maskstream.preprocess.executors.local import LocalExecutor, choose_executor
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import MaskstreamError, OutageError, ResumeError, ShardError, UnlistedError
from maskstream.shards.format.dataset import FOREIGN, finish_split, list_versions, read_description
from maskstream.shards.format.records import RECORDS, Records
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.sample import DatasetInfo, Reject
from maskstream.shards.format.verify import SplitCheck, VerifyReport, unreadable
from maskstream.shards.format.writer import mended, repair_files
from maskstream.shards.progress import Progress
from maskstream.shards.stores.folders import is_elsewhere
from maskstream.shards.stores.output import Location, Output, open_output

from .ledger import CrashableTask, run_tasks
from .task import WrittenShard

SMALL_BYTES = 64 << 20
"""Size in bytes below which reading a split is faster than starting processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckTask(CrashableTask):
    """Check of one shard of the split at a location.

    Attributes:
        location: Path or URL of the split.
        run: Unique id of the verification. A process opens the split once per id, since its files may have changed
            since an earlier one.
        number: Number of the shard.
        name: Name of the shard.
        size_bytes: Size of its tar.
        decode: Whether samples are decoded.
    """

    location: str | Path
    run: str
    number: int
    name: str
    size_bytes: int
    decode: bool

    @property
    def units(self) -> int:
        """Size in kB."""
        return -(-self.size_bytes // 1000)


def check_shard(task: CheckTask, report: Report) -> list[str]:
    """Return the problems of a shard. Crashing two processes is a problem too."""
    try:
        task.crashes.check(task.name)
    except RejectError as error:
        return [f"{task.name}: cannot be checked ({error.reason})"]
    check = _opened(task.location, task.run)
    report(Attempt(task.name, math.inf))
    return check.shard_problems(task.number, decode=task.decode, advance=lambda size_bytes: None)


@lru_cache(maxsize=1)
def _opened(location: str | Path, run: str) -> SplitCheck:
    return SplitCheck.of(location, cached=True)


@dataclass(frozen=True, slots=True)
class _Found:
    """In-memory ledger of problems by shard."""

    problems: dict[str, list[str]] = field(default_factory=dict)

    def stands(self, task: CheckTask) -> list[str] | None:
        return None

    def record(self, task: CheckTask, done: list[str], restarts: int) -> None:
        self.problems[task.name] = done


def verify_split(
    location: str | Path,
    *,
    decode: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Verify a split as `verify` (shards/format/verify.py) does, with one task per shard.

    Args:
        location: Path or URL of the split.
        decode: Whether samples are decoded too.
        workers: Number of local processes. By default a small split is read in this process, and others use one process
            per core.
        executor: Runs the tasks instead.
        progress: Shows the progress.

    Raises:
        OutageError: The location cannot be reached.
    """
    runs = choose_executor(executor, workers)
    try:
        check = SplitCheck.of(location)
    except OutageError:
        raise
    except MaskstreamError as error:
        return unreadable(error)
    info = check.manifest.info
    if workers is None and not decode and info["counts"]["bytes"] < SMALL_BYTES:
        runs = LocalExecutor(0)
    found = _Found()
    run_tasks(
        runs,
        check_shard,
        _list_tasks(location, check, decode),
        found,
        progress or Progress(),
        phase=f"verify {info['split']}",
        unit="kB",
    )
    problems = check.split_problems()
    for name in check.manifest.shard_names:
        problems += found.problems[name]
    return check.report(problems)


def _list_tasks(location: str | Path, check: SplitCheck, decode: bool) -> list[CheckTask]:
    run = secrets.token_hex(8)
    return [
        CheckTask(
            location=location,
            run=run,
            number=number,
            name=shard.name,
            size_bytes=shard.size_bytes,
            decode=decode,
        )
        for number, shard in enumerate(check.shards)
    ]


_ABOUT = ("dataset", "split", "modality", "profile")
_ENCODE = "`maskstream shards DATASET --root ROOT --out OUT --repair` encodes it again from its sources"


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Result of a repair.

    Attributes:
        repaired: Files that were rewritten.
        beyond: Damage that could not be repaired, with the remedy.
    """

    repaired: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


def about(info: DatasetInfo, missing: Sequence[Reject]) -> dict[str, Any]:
    """Return the parts of the index that are not in the records: the split's description and sources without a file."""
    return asdict(info) | {"missing": [asdict(one) for one in missing]}


def repair_split(location: Location) -> RepairReport:
    """Rewrite damaged idx and sums files of a split, and its index (dataset.json, manifest, rejects) from the records.

    Tars are read in full but never written; damaged ones are reported.

    Raises:
        BusyError: A run is writing to the split.
        StoreError: The split cannot be written to.
    """
    output = open_output(location)
    report = RepairReport()
    with output.sole_writer():
        index = _index(output)
        if index is not None and index.manifest.info["profile"] == FOREIGN:
            report.beyond.append(
                f"{location} is an index of foreign tars; if it is damaged, recreate it with `maskstream index`"
            )
            return report
        if index is not None and any(is_elsewhere(name) for name in index.manifest.shard_names):
            report.beyond.append(
                f"{location} was merged from other splits; repair those, then run `maskstream merge` again"
            )
            return report
        records = Records(output, WrittenShard)
        found = {task.name: records.read(task) for task in records.tasks()}
        whole = _repair_from_records(output, found, report) if found else _repair_from_index(output, index, report)
        if index is None:
            _write_index(output, records, found, report, whole=whole)
    return report


def _index(output: Output) -> SplitCheck | None:
    """Return the index; None if it is damaged or missing."""
    try:
        check = SplitCheck.of(output.location)
        read_rejects(check.manifest.store, check.manifest.info)
    except OutageError:
        raise
    except MaskstreamError:
        return None
    return check


def _repair_from_records(output: Output, found: Mapping[str, WrittenShard | None], report: RepairReport) -> bool:
    """Repair the files next to the tars from the records; return whether all tars are intact."""
    whole = True
    for name, record in found.items():
        if record is None:
            report.beyond.append(f"{RECORDS}/{name}.record is damaged; {_ENCODE}")
            whole = False
        elif record.shard is not None:
            whole &= _check_tar(report, name, mended(output, record.shard))
    return whole


def _repair_from_index(output: Output, index: SplitCheck | None, report: RepairReport) -> bool:
    """Repair the files next to the tars from the manifest, if there are no records; return whether all tars are
    intact.
    """
    if index is None:
        return False
    whole = True
    for number in range(len(index.rows)):
        shard = index.shard(number)
        size, sha256 = shard.declared.get("size_bytes", -1), shard.declared.get("sha256", "")
        whole &= _check_tar(report, shard.name, repair_files(output, shard.name, size, sha256, shard.index))
    return whole


def _check_tar(report: RepairReport, name: str, written: list[str] | None) -> bool:
    """Return whether a tar is intact, and add the files rewritten for it, or its damage, to the report."""
    if written is None:
        report.beyond.append(f"{name} is missing, or its bytes have changed; {_ENCODE}")
        return False
    report.repaired.extend(written)
    return True


def _write_index(
    output: Output,
    records: Records[WrittenShard],
    found: Mapping[str, WrittenShard | None],
    report: RepairReport,
    *,
    whole: bool,
) -> None:
    """Rebuild the index from the records, or report why that is impossible."""
    info, missing = _describe_split(records)
    if info is None:
        report.beyond.append(
            f"the index is damaged, and {RECORDS} has no description of it; run the same `maskstream shards` again"
        )
        return
    expected = -(-info.settings["sources"] // info.settings["samples_per_shard"])
    if not whole or len(found) != expected:
        report.beyond.append(
            f"the index is damaged; it can be rewritten once all of its {expected} shards and records are intact"
        )
        return
    if _is_changed(output):
        report.beyond.append(
            "the index is damaged, and the split was modified after its creation, which its records do not cover"
        )
        return
    done = [record for record in found.values() if record is not None]
    rejects = [*missing, *(reject for record in done for reject in record.rejects)]
    try:
        finish_split(output, info, [record.shard for record in done if record.shard is not None], rejects)
    except ShardError as error:
        report.beyond.append(f"the index cannot be written ({error})")
        return
    report.repaired.append("dataset.json, the manifest and the rejects")


def _is_changed(output: Output) -> bool:
    """Return whether the split has a later version than the records."""
    with suppress(UnlistedError):
        if list_versions(output.store)[-1:] > [1]:
            return True
    try:
        return bool(read_description(output.store).get("version", 1) != 1)
    except ShardError:
        return False


def _describe_split(records: Records[WrittenShard]) -> tuple[DatasetInfo | None, list[Reject]]:
    """Return the description of the split in the records, and the sources without a file."""
    try:
        about = records.description()
        job = records.job()
    except ResumeError:
        return None, []
    if about is None or job is None:
        return None, []
    info = DatasetInfo(
        **{name: about[name] for name in _ABOUT},
        label_names=tuple(about["label_names"]),
        settings=about["settings"],
    )
    return info, [Reject(**one) for one in about["missing"]]
