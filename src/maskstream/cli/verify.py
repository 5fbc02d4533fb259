"""`maskstream verify` and `inspect`: whether every byte of a split is right, and what is in it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from .job_options import Workers
from .terminal import Data, Json, console, errors, show


def inspect(data: Data, as_json: Json = False) -> None:
    """Print the contents of a split: samples, hours, resolutions, frame rates, bytes, rejects by reason."""
    from maskstream.shards.format.inspect import inspect as look

    show(look(data), as_json)


def verify(
    data: Data,
    decode: Annotated[bool, typer.Option("--decode", help="Also decode every sample.")] = False,
    workers: Workers = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="First write again what is damaged and can be made from the rest: idx, sums, the index. A damaged "
            "shard needs its sources: `maskstream shards ... --repair`.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every byte of a split against its checksums and index; the exit code is 1 if something is wrong."""
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.job.progress import ProgressBar
    from maskstream.preprocess.job.repair import RepairReport, repair_split
    from maskstream.preprocess.job.verification import verify_split

    mended = repair_split(data) if repair else RepairReport()
    with nullcontext() if as_json else ProgressBar() as shown:
        result = verify_split(data, decode=decode, workers=workers, progress=shown)
    if as_json:
        print(json.dumps(asdict(result) | {"ok": result.ok} | (asdict(mended) if repair else {})))
    else:
        for name in mended.repaired:
            console.print(f"repaired {escape(name)}", highlight=False, soft_wrap=True)
        for problem in mended.beyond:
            errors.print(f"[red]not repaired[/] {escape(problem)}", highlight=False, soft_wrap=True)
        for problem in result.problems:
            errors.print(f"[red]problem[/] {escape(problem)}", highlight=False, soft_wrap=True)
        console.print(
            f"{escape(str(data))}: {plural(result.samples, 'sample')} in {plural(result.shards, 'shard')}, "
            f"{result.size_bytes / 1e6:.1f} MB: "
            + ("[green]no problems[/]" if result.ok else f"[red]{plural(len(result.problems), 'problem')}[/]"),
            highlight=False,
            soft_wrap=True,
        )
    raise typer.Exit(0 if result.ok else 1)
