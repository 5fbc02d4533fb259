"""`maskstream index`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .job_options import Address, ExecutorName, MaxPixels, MemoryLimit, TimeLimit, Workers, executor_named, limits_of
from .terminal import Json, show


def index(
    tars: Annotated[
        list[str], typer.Argument(help="WebDataset tars, or a folder of them; or their URLs.", show_default=False)
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder or URL for the index [default: that of the tars]", show_default=False)
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help="video or audio [default: that of the first sample]", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A csv file with labels of the samples, such as Kinetics' train.csv.", show_default=False),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            help="The column of --labels that names a sample [default: key, id, video_id, youtube_id, path, file, "
            "filename or wav, whichever it has]",
            show_default=False,
        ),
    ] = None,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Index the tars as they are, though no sample has a label")
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Trust the keyframe flags in video containers instead of decoding.")
    ] = False,
    workers: Workers = None,
    executor: ExecutorName = "local",
    address: Address = None,
    max_pixels: MaxPixels = None,
    time_limit: TimeLimit = 60.0,
    memory_limit: MemoryLimit = None,
    as_json: Json = False,
) -> None:
    """Index plain WebDataset tars of videos (mp4, mov, mkv, webm) or sounds (flac, wav, mp3, ogg, opus, m4a, aac).

    The tars are not changed. Afterwards the folder is a split like any other; files that cannot be used are listed in
    rejects.parquet with the reason.
    """
    from maskstream.preprocess import index_tars
    from maskstream.preprocess.job.progress import ProgressBar

    limits = limits_of(max_pixels, time_limit, memory_limit)
    with nullcontext() if as_json else ProgressBar() as shown:
        report = index_tars(
            tars,
            out,
            modality=modality,
            labels=labels,
            match=match,
            as_is=as_is,
            fast=fast,
            workers=workers,
            executor=executor_named(executor, workers, address),
            limits=limits,
            progress=shown,
        )
    facts = {"folder": str(report.folder), "tars": report.tars, "samples": report.samples, "rejects": report.rejects}
    if report.without_label is not None:
        facts["without_label"] = report.without_label
    show(facts, as_json)
