"""`maskstream index`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .terminal import Json, show


def index(
    tars: Annotated[
        list[Path], typer.Argument(help="WebDataset tars that others wrote, or their folder.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the index goes [default: the folder of the tars]", show_default=False)
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help="video or audio [default: what the first sample holds]", show_default=False),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Believe the keyframes of videos' containers; decode nothing else.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes [default: all cores]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Index plain WebDataset tars of videos (mp4, mov, mkv, webm) or sounds (flac, wav, mp3, ogg, opus, m4a, aac).

    Nothing is rewritten. The folder is then a split like any other; what cannot be used lands in rejects.parquet with
    its reason.
    """
    from ..preprocess import index_tars
    from ..preprocess.progress import ProgressBar

    with nullcontext() if as_json else ProgressBar() as shown:
        report = index_tars(tars, out, modality=modality, fast=fast, workers=workers, progress=shown)
    facts = {"folder": str(report.folder), "tars": report.tars, "samples": report.samples, "rejects": report.rejects}
    show(facts, as_json)
