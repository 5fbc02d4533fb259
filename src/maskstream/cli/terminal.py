"""The parts that commands share: the consoles of both streams, common arguments, and output as lines or JSON."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from rich.markup import escape

from maskstream.shards.flag import DataFlag, OutputFlag, RunFlag
from maskstream.shards.printable import DataConsole
from maskstream.shards.progress import SILENT, Progress, ProgressBar

console = DataConsole()
errors = DataConsole(stderr=True)

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""
TERMINATED = 143
"""The exit code after SIGTERM, as shells have it."""

Data = Annotated[
    str,
    DataFlag(
        "Split: a folder such as data/shards/k400/train, or a URL such as s3://bucket/train (`maskstream docs stores`)."
    ),
]
Device = Annotated[str, RunFlag("Device: auto, cpu, cuda, cuda:1, ...")]
Json = Annotated[bool, OutputFlag("Print the result as JSON and nothing else.", "--json")]


def working(what: str, as_json: bool = False) -> Progress:
    """Start the progress of a command on stderr, before torch is imported.

    It is silent with JSON output and on ranks other than 0. Commands enter it while they work.

    Args:
        what: Current work.
        as_json: Whether the command prints JSON.
    """
    shown = SILENT if as_json or os.environ.get("RANK", "0") != "0" else ProgressBar(errors)
    shown.phase(what)
    return shown


def say(text: str) -> None:
    """Print one line, neither wrapped at the width of the terminal nor coloured."""
    console.print(escape(text), highlight=False, soft_wrap=True)


def show(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print facts, one non-empty fact per line, or all as one line of JSON.

    Args:
        facts: Facts by name.
        as_json: Whether to print JSON.
    """
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if text := _words(value):
            say(f"  {name:<{width}}  {text}")


def tell(found: Mapping[str, Any], lines: Iterable[str], as_json: bool) -> None:
    """Print a result as one line of JSON, or as lines of text.

    Args:
        found: The result.
        lines: Lines of text.
        as_json: Whether to print JSON.
    """
    if as_json:
        print(json.dumps(found))
        return
    for line in lines:
        say(line)


def tabulate(names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Return the lines of a table.

    Args:
        names: Names of the columns.
        rows: Name and cells of each row.
    """
    lines = [("", names), *rows]
    width = max(len(text) for text, _ in lines)
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in lines), strict=True)]
    return [
        "  ".join([text.ljust(width), *(cell.rjust(n) for cell, n in zip(cells, widths, strict=True))]).rstrip()
        for text, cells in lines
    ]


def _words(value: Any) -> str:
    """Return a value as text: floats with six digits, nested mappings in parentheses."""
    if not isinstance(value, Mapping):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    return ", ".join(f"{k} ({_words(v)})" if isinstance(v, Mapping) else f"{k} {_words(v)}" for k, v in value.items())
