"""`maskstream report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import say, show


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, such as runs/demo.", show_default=False)],
    data: Annotated[
        str,
        typer.Option(help="The split whose samples are reconstructed, preferably for validation.", show_default=False),
    ],
    unseen: Annotated[
        str | None,
        typer.Option(
            help="A split of sources none of which was trained on; its results are shown apart.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The HTML file [default: RUN/report.html]", show_default=False)
    ] = None,
) -> None:
    """Write one HTML page about a run: loss, throughput, reconstructions, and samples with their masks.

    It prints what the run reaches on these samples beside trivial predictors.
    """
    from maskstream.modalities import modality_of
    from maskstream.pages.report.report import write_report
    from maskstream.shards.format.manifest import Manifest

    split = Manifest.load(data)
    written = write_report(modality_of(split), run, split, out, unseen=unseen)
    show(written.facts, as_json=False)
    say(f"wrote {written.page}")
