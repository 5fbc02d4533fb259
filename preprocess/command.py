"""The commands `maskstream shards` and `maskstream index`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from .encode.video.profile import PROFILES
from .foreign import index_tars
from .job import JobReport, make_shards
from .progress import Progress, ProgressBar


def shard_command(
    dataset: str,
    root: Path,
    out: Path,
    *,
    profile: str = "train",
    workers: int | None = None,
    samples_per_shard: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """`make_shards` with a bar on stderr unless `quiet`; returns its report, JSON-able.

    Raises ValueError for an unknown profile, and what `make_shards` raises.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is not one of {', '.join(PROFILES)}")
    shown: Progress | None
    with nullcontext() if quiet else ProgressBar() as shown:
        report = make_shards(
            dataset,
            root,
            out,
            profile=PROFILES[profile],
            workers=workers,
            samples_per_shard=samples_per_shard,
            overwrite=overwrite,
            progress=shown,
        )
    return _facts(report)


def index_command(
    tars: Sequence[Path],
    out: Path | None,
    *,
    modality: str | None = None,
    fast: bool = False,
    workers: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """`index_tars` with a bar on stderr unless `quiet`; returns its report, JSON-able.

    Raises what `index_tars` raises.
    """
    shown: Progress | None
    with nullcontext() if quiet else ProgressBar() as shown:
        report = index_tars(tars, out, modality=modality, fast=fast, workers=workers, progress=shown)
    return {"folder": str(report.folder), "tars": report.tars, "samples": report.samples, "rejects": report.rejects}


def _facts(report: JobReport) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for name, split in report.splits.items():
        counts = {key: value for key, value in split.counts.items() if key != "rejected"}
        splits[name] = {"state": split.state, **counts, **split.counts.get("rejected", {}), "folder": str(split.folder)}
    rate = {"clips_per_s": round(report.clips / report.wall_s, 2)} if report.clips else {}
    return {"dataset": report.dataset, "profile": report.profile, **splits, "seconds": round(report.wall_s, 1), **rate}
