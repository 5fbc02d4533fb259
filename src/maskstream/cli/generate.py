"""`maskstream generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .terminal import Json, say, show


def generate(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run of a text model, such as pmlm-tiny.", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="A split with the tokenizer of the run.", show_default=False)],
    text: Annotated[str, typer.Option(help="What is there already; [MASK] is a blank.")] = "",
    blanks: Annotated[int, typer.Option(min=0, help="Blanks behind the text.")] = 24,
    count: Annotated[int, typer.Option(min=1, help="Texts.")] = 3,
    order: Annotated[
        Literal["random", "left_to_right", "confident"], typer.Option(help="Which blank is filled in next.")
    ] = "random",
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the most probable token.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Fill in the blanks of a text with a masked language model, in any order."""
    from ..pages.generated import generated

    made = generated(run, data, text, blanks=blanks, count=count, order=order, temperature=temperature, seed=seed)
    if as_json:
        show({"texts": made}, as_json)
        return
    for one in made:
        say(one)
