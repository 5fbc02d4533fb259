"""`maskstream doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import Progress

from .data_options import Component, Set, settings
from .terminal import Data, Json, console, errors


def doctor(
    data: Data,
    set_: Set = None,
    component: Component = None,
    size: Annotated[
        int | None, typer.Option(min=2, max=32, help="Side of the pictures in pixels [default: 16]", show_default=False)
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option(help="Shapes of masked parts: 1,2,4,rows,columns [default: all]", show_default=False),
    ] = None,
    ratios: Annotated[str, typer.Option(help="Masked ratios.")] = "0.25,0.5,0.75,0.9",
    samples: Annotated[int, typer.Option(min=2, help="The largest number of videos.")] = 5000,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Hide an exact number of parts, as masks.Random does, instead of each independently."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Score mask shapes and ratios by how well a masked linear autoencoder's features predict the labels.

    The scores are computed in closed form, in seconds and without training, from second moments of small pictures, the
    middle frame of each video. They are a first hint about a dataset, not a result.
    """
    from maskstream.pages import doctor as clinic
    from maskstream.shards.config import with_set

    pictures = with_set(clinic.MIDDLE_FRAME, settings(set_, component=component, size=size), where="--help lists all")
    moments = clinic.Moments.of(clinic.labelled_frames(data, pictures, samples=samples))
    wanted = clinic.shapes_of(pictures.clip.size, None if shapes is None else shapes.split(","))
    tried = _numbers(ratios)
    with Progress(console=errors, transient=True, disable=as_json) as bar:
        task = bar.add_task("scoring masks", total=len(wanted) * len(tried))
        findings = clinic.examine(moments, wanted, tried, exact=exact, progress=lambda: bar.advance(task))
    if as_json:
        print(json.dumps({"samples": moments.count, "findings": [asdict(f) for f in findings]}))
    else:
        clinic.show(findings, moments, console)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"expected numbers separated by commas, such as 0.5,0.75, got {text!r}") from None
