"""`maskstream append`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from .terminal import Data, Json, console


def append(
    data: Data,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The finished split whose shards are copied.")],
    as_json: Json = False,
) -> None:
    """Append the shards of another split to a split, as a new version."""
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.versions import append as appended_to

    result = appended_to(data, other)
    if as_json:
        print(json.dumps(asdict(result)))
        return
    console.print(
        f"{escape(str(data))}: version {result.version} has {plural(result.samples, 'sample')} in "
        f"{plural(result.shards, 'shard')} more",
        highlight=False,
        soft_wrap=True,
    )
