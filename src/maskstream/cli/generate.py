"""`maskstream generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .terminal import Json, say, show

_TEXT, _PAGE = "Text", "Other samples"


def generate(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, such as of pmlm-tiny or mage-tiny.", show_default=False)
    ],
    data: Annotated[
        str, typer.Option(help="A split: with the tokenizer of the run, or of real samples.", show_default=False)
    ],
    text: Annotated[str, typer.Option(help="What is there already; [MASK] is a blank.", rich_help_panel=_TEXT)] = "",
    blanks: Annotated[int, typer.Option(min=0, help="Blanks behind the text.", rich_help_panel=_TEXT)] = 24,
    order: Annotated[
        Literal["random", "left_to_right", "confident"],
        typer.Option(help="Which blank is filled in next.", rich_help_panel=_TEXT),
    ] = "random",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of iterative decoding.", rich_help_panel=_PAGE)] = 12,
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file [default: RUN/generated.html]", show_default=False, rich_help_panel=_PAGE),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Samples [default: 3 texts, 16 others]", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="0: the most probable [default: 0.8 of texts, else the model's]", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Generate with a masked model: fill in the blanks of a text in any order, or write a page of generated samples."""
    from ..modalities import modality_of

    modality = modality_of(data)
    if modality.name != "text":
        from ..pages.figures.work import Drawn
        from ..pages.generated_page import write_generated

        drawn = Drawn(count=16 if count is None else count, rounds=rounds, temperature=temperature, seed=seed)
        page = write_generated(modality, run, data, out, drawn)
        if as_json:
            show({"page": str(page)}, as_json)
        else:
            say(f"wrote {page}")
        return
    from ..pages.generated import generated

    made = generated(
        run,
        data,
        text,
        blanks=blanks,
        count=3 if count is None else count,
        order=order,
        temperature=0.8 if temperature is None else temperature,
        seed=seed,
    )
    if as_json:
        show({"texts": made}, as_json)
        return
    for one in made:
        say(one)
