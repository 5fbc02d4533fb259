"""`maskstream paper roar`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import Json, say

if TYPE_CHECKING:
    from maskstream.train.papers.roar.roar import RoarResult


def roar(
    run: Annotated[
        str,
        typer.Argument(help="The name of a recipe of a text classifier, or the folder of a run.", show_default=False),
    ],
    data: Annotated[str, typer.Option(help="The labelled split to train on.", show_default=False)],
    test: Annotated[str, typer.Option(help="The labelled split to test on.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder of the result.")] = Path("runs/roar"),
    measures: Annotated[
        str | None,
        typer.Option(
            help="With commas between: gradient, input-x-gradient, integrated-gradients, attention "
            "[default: all that the model has]",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set a field of the recipe, such as model.labels=2; repeatable.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each level, with other weights and orders.")] = 3,
    step: Annotated[int, typer.Option(min=1, help="Per cent of the tokens from one level to the next.")] = 10,
    recursive: Annotated[
        bool, typer.Option(help="Rank the tokens of a level by the model of the level before, not by the first one.")
    ] = True,
    samples: Annotated[int, typer.Option(min=1, help="The most test texts.")] = 2048,
    points: Annotated[int, typer.Option(min=1, help="Points of integrated gradients.")] = 20,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each training [default: the recipe's]", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure how faithful measures of importance are: hide what they call important, and train again (docs/roar.md).

    It writes roar.json and a page of curves, roar.html, into the folder. The same command continues.
    """
    from maskstream.pages.roar import roar_page
    from maskstream.pipelines.stream.topology import resolved_device
    from maskstream.shards.config import with_set
    from maskstream.train.core.run_folder import run_recipe
    from maskstream.train.papers.roar.roar import roar as compared
    from maskstream.train.recipes import named_recipe

    recipe = run_recipe(Path(run)) if Path(run, "run.json").exists() else named_recipe(run)
    result = compared(
        with_set(recipe, set_ or []),
        data,
        test,
        out,
        measures=None if measures is None else [name.strip() for name in measures.split(",") if name.strip()],
        seeds=seeds,
        step=step,
        recursive=recursive,
        samples=samples,
        points=points,
        steps=steps,
        device=resolved_device(device),
        said=(lambda line: None) if as_json else say,
    )
    page = roar_page(result, data, out / "roar.html")
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    for line in table(result):
        say(line)
    say(f"wrote {page} and roar.json beside it")


def table(result: RoarResult) -> list[str]:
    """The lines of a table: a row per measure with its RACU and the mean of its curve at each level."""
    width = max(map(len, result.measures))
    head = "".join(f"{level:>7}%" for level in result.levels)
    lines = [
        f"{result.recipe}: macro F1 on {result.test:,} texts by share of hidden tokens, mean over "
        f"{len(result.of(result.measures[0]))} seeds; RACU with its least and most; majority {result.majority:.3f}",
        f"{''.ljust(width)}  {'RACU':>24}{head}",
    ]
    for name in result.measures:
        own, areas = result.of(name), result.racu(name)
        means = [sum(curve.values[i] for curve in own) / len(own) for i in range(len(result.levels))]
        area = f"{sum(areas) / len(areas):+.3f} ({min(areas):+.3f} to {max(areas):+.3f})"
        lines.append(f"{name.ljust(width)}  {area:>24}" + "".join(f"{value:>8.3f}" for value in means))
    return lines
