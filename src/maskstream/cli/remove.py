"""`maskstream remove`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .key_file import keys_in
from .terminal import Data, Json, console


def remove(
    data: Data,
    keys: Annotated[Path, typer.Option("--keys", help="A text file with the key of a sample in each line.")],
    as_json: Json = False,
) -> None:
    """Remove samples from a split, as a new version: loaders replace them, and no tar is touched."""
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.versions import remove as removed_from

    result = removed_from(data, keys_in(keys, "--keys"))
    if as_json:
        print(json.dumps(asdict(result)))
        return
    console.print(
        f"{escape(str(data))}: version {result.version} has {plural(result.removed_in_all, 'removed sample')}, "
        f"{result.removed} of them since now",
        highlight=False,
        soft_wrap=True,
    )
