"""`maskstream paper meshmask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import Json, say, show


def meshmask(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs of a next-step model on meshes.", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="A split of simulations, preferably for validation.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The HTML file to write [default: none]", show_default=False)] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Trajectories [default: all]", show_default=False)] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each [default: those of the shortest]", show_default=False),
    ] = None,
    component: Annotated[
        str | None, typer.Option(help="The mesh, if samples have several [default: the only one]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Roll out next-step models from the first step of trajectories, and compare their errors with persistence."""
    from maskstream.pages.report.rollout_report import compare_rollouts

    result = compare_rollouts(runs, data, out, count=count, steps=steps, component=component)
    if as_json:
        show(result, as_json)
        return
    table = result["errors"]
    width = max(map(len, table))
    columns = [column.replace("_", " ") for column in next(iter(table.values()))]
    say("  ".join(["".ljust(width), *(f"{column:>8}" for column in columns)]))
    for name, errors in table.items():
        values = (f"{value:>{max(len(column), 8)}.4f}" for column, value in zip(columns, errors.values(), strict=True))
        say("  ".join([name.ljust(width), *values]))
    if out is not None:
        say(f"wrote {out}")
