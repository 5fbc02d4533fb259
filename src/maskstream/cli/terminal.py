"""The parts that commands share: the consoles of both streams, common arguments, and output as lines or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

console = Console()
errors = Console(stderr=True)

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

Data = Annotated[
    Path, typer.Argument(help="The folder of one split, such as data/shards/k400/train.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]


def show(facts: Mapping[str, Any], as_json: bool) -> None:
    """Prints facts, one per line, or as one line of JSON."""
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        console.print(f"  {name:<{width}}  {escape(text)}", highlight=False, soft_wrap=True)
