"""`maskstream erase`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .key_file import keys_in
from .terminal import Data, Json, console, errors


def erase(
    data: Data,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="The keys of samples.")] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="A text file with the key of a sample in each line.", show_default=False),
    ] = None,
    words: Annotated[
        bool,
        typer.Option(
            "--words",
            help="Also erase names of labels and words of tokenizer.json that no other sample has.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase samples from a split and all of its versions: bytes, keys and sources, as a new version.

    A shard that held one is written again under another name. Runs resume exactly for all other samples. With --words,
    all texts are read, of the split and of those beside it, from which the words are erased too.
    """
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.versions import erase as erased_from

    wanted = [*(keys or []), *(keys_in(from_, "--from") if from_ else [])]
    if not wanted:
        raise typer.BadParameter("give at least one key", param_hint="KEYS... or --from")
    result = erased_from(data, wanted, words=words)
    if as_json:
        print(json.dumps(asdict(result)))
        return
    console.print(
        f"{escape(str(data))}: {plural(result.erased, 'sample')} erased; the current version is {result.version}",
        highlight=False,
        soft_wrap=True,
    )
    if words:
        where = f", also from {', '.join(map(escape, result.beside))}" if result.beside else ""
        console.print(
            f"names of labels erased: {result.labels}; words of the vocabulary erased: {result.tokens}{where}",
            highlight=False,
            soft_wrap=True,
        )
    if result.unknown:
        errors.print(
            f"{plural(len(result.unknown), 'key')} not in the split, such as {escape(result.unknown[0])}; a sample "
            "that was erased before has no key any more",
            highlight=False,
            soft_wrap=True,
        )
