"""`maskstream evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import Json, say, show

if TYPE_CHECKING:
    from maskstream.train.evaluations import RunEvaluation


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, such as runs/demo.", show_default=False)],
    data: Annotated[
        str, typer.Option(help="The split that is measured, preferably for validation.", show_default=False)
    ],
    again: Annotated[bool, typer.Option("--again", help="Measure also what evaluation.json has already.")] = False,
    as_json: Json = False,
) -> None:
    """Measure what runs reach on a split, beside predictions that need no training (docs/training.md#evaluate).

    The numbers are kept in RUN/evaluation.json; `report` writes the same there. Several runs are compared.
    """
    from maskstream.shards.format.manifest import Manifest
    from maskstream.train.evaluations import evaluate_run

    split = Manifest.load(data)
    found = [evaluate_run(run, split, again=again) for run in runs]
    if as_json:
        show({"evaluations": [one.to_dict() for one in found]}, as_json)
        return
    for line in table([str(run) for run in runs], found):
        say(line)


def table(names: Sequence[str], found: Sequence[RunEvaluation]) -> list[str]:
    """The lines of a table: under each score those of its baselines, in a column for each run."""
    from maskstream.pages.report.evaluated import number, score_name

    rows: dict[tuple[str, str], dict[int, str]] = {}
    for column, one in enumerate(found):
        for score in one.scores:
            rows.setdefault((score_name(score), ""), {})[column] = number(score.value, score.unit)
            for name, value in score.baselines.items():
                rows.setdefault((score_name(score), name), {})[column] = number(value, score.unit)
        for name, value in one.notes.items():
            rows.setdefault((name, ""), {})[column] = number(value, "")
    ordered = sorted(rows, key=lambda row: [first for first, _ in rows].index(row[0]))
    texts = [f"  {of}" if of else name for name, of in ordered]
    steps = [f"step {one.step}" for one in found]
    cells = [[rows[row].get(column, "") for column in range(len(found))] for row in ordered]
    width = max(map(len, texts), default=0)
    widths = [max(map(len, column)) for column in zip(names, steps, *cells, strict=True)]
    lines = [("", names), ("", steps), *zip(texts, cells, strict=True)]
    return [
        "  ".join([text.ljust(width), *(cell.rjust(n) for cell, n in zip(some, widths, strict=True))]).rstrip()
        for text, some in lines
    ]
