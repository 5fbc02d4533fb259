"""`maskstream paper bert`, `mage` and `maskvit`: what masked models generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .terminal import Json, say, show

_TEXT, _PAGE = "Text", "Other samples"
Order = Literal["random", "left_to_right", "confident"]


def generate_texts(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a run of a masked language model, such as of pmlm-tiny.", show_default=False),
    ],
    data: Annotated[str, typer.Option(help="A split with the tokenizer of the run.", show_default=False)],
    text: Annotated[str, typer.Option(help="What is there already; [MASK] is a blank.")] = "",
    blanks: Annotated[int, typer.Option(min=0, help="Blanks behind the text.")] = 24,
    order: Annotated[Order, typer.Option(help="Which blank is filled in next.")] = "random",
    count: Annotated[int, typer.Option(min=1, help="Texts.")] = 3,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the most probable.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Fill in the blanks of a text in any order, by a masked language model."""
    from maskstream.pages.generated import generated_texts

    made = generated_texts(run, data, text, blanks=blanks, count=count, order=order, temperature=temperature, seed=seed)
    if as_json:
        show({"texts": made}, as_json)
        return
    for one in made:
        say(one)


def generate_pictures(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, such as of mage-tiny or maskvit-tiny.", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="A split of real samples.", show_default=False)],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of iterative decoding.")] = 12,
    count: Annotated[int, typer.Option(min=1, help="Samples.")] = 16,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0: the most probable [default: the model's]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The HTML file [default: RUN/generated.html]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a page of pictures or clips that a model of ids generates, beside real ones."""
    from maskstream.modalities import modality_of
    from maskstream.pages.generated import write_generated
    from maskstream.shards.format.manifest import Manifest

    split = Manifest.load(data)
    page = write_generated(
        modality_of(split), run, split, out, count=count, rounds=rounds, temperature=temperature, seed=seed
    )
    if as_json:
        show({"page": str(page)}, as_json)
    else:
        say(f"wrote {page}")


def generate(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, such as of pmlm-tiny or mage-tiny.", show_default=False)
    ],
    data: Annotated[
        str, typer.Option(help="A split: with the tokenizer of the run, or of real samples.", show_default=False)
    ],
    text: Annotated[str, typer.Option(help="What is there already; [MASK] is a blank.", rich_help_panel=_TEXT)] = "",
    blanks: Annotated[int, typer.Option(min=0, help="Blanks behind the text.", rich_help_panel=_TEXT)] = 24,
    order: Annotated[Order, typer.Option(help="Which blank is filled in next.", rich_help_panel=_TEXT)] = "random",
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
    """Generate with a masked model: the former name of `maskstream paper bert`, `mage` and `maskvit`."""
    from maskstream.modalities import modality_of

    if modality_of(data).name == "text":
        heat = 0.8 if temperature is None else temperature
        generate_texts(run, data, text, blanks, order, count or 3, heat, seed, as_json)
    else:
        generate_pictures(run, data, rounds, count or 16, temperature, seed, out, as_json)
