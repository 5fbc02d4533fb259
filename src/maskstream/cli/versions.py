"""`maskstream append`, `merge`, `remove` and `erase`: versions of a split."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from .terminal import Data, Json, errors, say

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def append(
    data: Data,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The finished split whose shards are copied.")],
    as_json: Json = False,
) -> None:
    """Append the shards of another split to a split, as a new version."""
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.versions import append as appended_to

    result = appended_to(data, other)
    more = f"{plural(result.samples, 'sample')} in {plural(result.shards, 'shard')} more"
    tell(result, as_json, f"{data}: version {result.version} has {more}")


def merge(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The folder of the merged split, or a URL.")],
    splits: Annotated[list[str], typer.Argument(metavar="SPLIT", help="Two or more finished splits.")],
    as_json: Json = False,
) -> None:
    """Merge splits into one that refers to their shards where they are; no tar is copied."""
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.versions import merge as merged

    result = merged(out, splits)
    found = f"{plural(result.samples, 'sample')} in {plural(result.shards, 'shard')} of {plural(len(splits), 'split')}"
    tell(result, as_json, f"{out}: version {result.version} has {found}")


def remove(
    data: Data,
    keys: Annotated[Path, typer.Option("--keys", help="A text file with the key of a sample in each line.")],
    as_json: Json = False,
) -> None:
    """Remove samples from a split, as a new version: loaders replace them, and no tar is touched."""
    from maskstream.pages.figures.words import plural
    from maskstream.preprocess.versions import remove as removed_from

    result = removed_from(data, keys_in(keys, "--keys"))
    removed = f"{plural(result.removed_in_all, 'removed sample')}, {result.removed} of them since now"
    tell(result, as_json, f"{data}: version {result.version} has {removed}")


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
    told = [f"{data}: {plural(result.erased, 'sample')} erased; the current version is {result.version}"]
    if words:
        where = f", also from {', '.join(result.beside)}" if result.beside else ""
        told.append(f"names of labels erased: {result.labels}; words of the vocabulary erased: {result.tokens}{where}")
    tell(result, as_json, *told)
    if result.unknown and not as_json:
        errors.print(
            f"{plural(len(result.unknown), 'key')} not in the split, such as {escape(result.unknown[0])}; a sample "
            "that was erased before has no key any more",
            highlight=False,
            soft_wrap=True,
        )


def tell(result: DataclassInstance, as_json: bool, *lines: str) -> None:
    """Prints what became of a split: the result as JSON, or lines."""
    if as_json:
        print(json.dumps(asdict(result)))
        return
    for line in lines:
        say(line)


def keys_in(path: Path, option: str) -> list[str]:
    """The keys in a file, without empty lines; ValueError, which names the option, for one that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ValueError(
            f"{option} {path} cannot be read ({reason}); give a text file with the key of a sample in each line"
        ) from error
    return [line.strip() for line in lines if line.strip()]
