"""`maskstream shards`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import Json, show

if TYPE_CHECKING:
    from ..preprocess import JobReport


def shards(
    dataset: Annotated[
        str,
        typer.Argument(
            help="Such as k400, ssv2, folder or sample, or package.module:name for one of your own; another name lists "
            "all.",
            show_default=False,
        ),
    ],
    root: Annotated[
        Path | None, typer.Option(help="Where the raw data lies [default: data/raw/DATASET]", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the shards go [default: data/shards/DATASET]", show_default=False)
    ] = None,
    profile: Annotated[str, typer.Option(help="Of video: train, copy or fps, see docs/shard-format.md.")] = "train",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes [default: all cores]", show_default=False)
    ] = None,
    samples_per_shard: Annotated[int | None, typer.Option(min=1, help="Sources per shard.", show_default=False)] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over where OUT was written with other settings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn raw data, as its publishers lay it out, into verified shards that are ready to train on.

    An interrupted run goes on where it stopped. What cannot be decoded lands in rejects.parquet with its reason.
    """
    from ..preprocess import PROFILES, make_shards
    from ..preprocess.progress import ProgressBar

    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is not one of {', '.join(PROFILES)}")
    folder = dataset.rpartition(":")[2]
    with nullcontext() if as_json else ProgressBar() as shown:
        report = make_shards(
            dataset,
            root or Path("data/raw") / folder,
            out or Path("data/shards") / folder,
            profile=PROFILES[profile],
            workers=workers,
            samples_per_shard=samples_per_shard,
            overwrite=overwrite,
            progress=shown,
        )
    show(_facts(report), as_json)


def _facts(report: JobReport) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for name, split in report.splits.items():
        counts = {key: value for key, value in split.counts.items() if key != "rejected"}
        splits[name] = {"state": split.state, **counts, **split.counts.get("rejected", {}), "folder": str(split.folder)}
    rate = {"sources_per_s": round(report.n_sources / report.wall_s, 2)} if report.n_sources else {}
    return {"dataset": report.dataset, "profile": report.profile, **splits, "seconds": round(report.wall_s, 1), **rate}
