"""`maskstream train`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from maskstream.shards.flag import DataFlag, ModelFlag, OutputFlag
from maskstream.train.core.options import TrainOptions

from .options import assign
from .terminal import INTERRUPTED, working


def train(
    recipe: Annotated[
        str,
        ModelFlag(
            "Recipe, such as videomae-tiny or mgmae-small, or package.module:name for your own. An unknown name lists "
            "all."
        ),
    ],
    *,
    data: Annotated[
        Sequence[str],
        DataFlag(
            "Training split, a folder or a URL (`maskstream docs stores`); repeatable, or a JSON file of a mixture "
            "(`maskstream docs training#several-splits`)."
        ),
    ] = (),
    weights: Annotated[
        str | None, DataFlag("Weights of several --data, in their order, such as 0.7,0.3 [default: equal].")
    ] = None,
    component: Annotated[
        Sequence[str],
        DataFlag(
            "Component to read, such as cam0.mp4, if samples have several; repeatable for video, to read clips of "
            "the same instants from each."
        ),
    ] = (),
    out: Annotated[Path | None, OutputFlag("Folder of the run [default: runs/RECIPE].")] = None,
    options: TrainOptions,
    print_config: Annotated[bool, OutputFlag("Print the whole recipe as JSON instead of training.")] = False,
) -> None:
    """Train a recipe on shards, and write metrics.jsonl, checkpoints and model.safetensors into the run's folder."""
    with working(f"opening {', '.join(data)} for {recipe}", as_json=print_config) as shown:
        from maskstream.pipelines.modalities.mixture import parse_mixture
        from maskstream.train.recipes import chosen_recipe
        from maskstream.train.recipes import train as run

        named = replace(options, set=[*assign(**{"data.component": component}), *options.set], progress=shown)
        if print_config:
            chosen = chosen_recipe(recipe, named.set, batch_size=named.batch_size, accumulate=named.accumulate)
            print(json.dumps(chosen.to_dict(defaults=True), indent=2))
            return
        if not data:
            raise typer.BadParameter("pass the training split, a folder or a URL", param_hint="--data")
        result = run(recipe, parse_mixture(data, weights), out or Path("runs") / recipe.rpartition(":")[2], named)
    if not result.finished:
        raise typer.Exit(INTERRUPTED)
