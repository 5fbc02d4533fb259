"""`maskstream merge`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from .terminal import Json, console


def merge(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The folder of the merged split, or a URL.")],
    splits: Annotated[list[str], typer.Argument(metavar="SPLIT", help="Two or more finished splits.")],
    as_json: Json = False,
) -> None:
    """Merge splits into one that refers to their shards where they are; no tar is copied."""
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.versions import merge as merged

    result = merged(out, splits)
    if as_json:
        print(json.dumps(asdict(result)))
        return
    console.print(
        f"{escape(out)}: version {result.version} has {plural(result.samples, 'sample')} in "
        f"{plural(result.shards, 'shard')} of {plural(len(splits), 'split')}",
        highlight=False,
        soft_wrap=True,
    )
