"""The options of commands that load a split: its data config, by `--set`, masks by name, and short forms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from maskstream.shards.config.base import KIND, VERSION

if TYPE_CHECKING:
    from maskstream.pipelines.modalities.data import DataConfig

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a field of the data config, such as clip.size=112 or mask.ratio=0.8; repeatable. All fields stand "
        "below.",
        show_default=False,
    ),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        help="A mask by name, or none, or package.module:name for your own; where there are two, the first one, and "
        "audio_mask=NAME or text_mask=NAME sets the other. An unknown name lists those that fit.",
        show_default=False,
    ),
]
Own = Annotated[
    str | None,
    typer.Option("--modality", help="package.module:NAME of a modality of your own.", show_default=False),
]
Component = Annotated[
    str | None,
    typer.Option(help="The component to read, such as cam0.mp4, of samples with several.", show_default=False),
]
Views = Annotated[
    int | None,
    typer.Option(min=1, help="Views per sample, each with its own crop, mask or step.", show_default=False),
]
Size = Annotated[int | None, typer.Option(help="Side of the pictures in pixels.", show_default=False)]
Frames = Annotated[int | None, typer.Option(help="Frames of a clip.", show_default=False)]
Stride = Annotated[int | None, typer.Option(help="Frames from one frame of a clip to the next.", show_default=False)]


def settings(set_: list[str] | None, **short: object) -> list[str]:
    """The settings of `--set`, and before them those of the short forms that were given."""
    return [*(f"{name}={json.dumps(value)}" for name, value in short.items() if value is not None), *(set_ or ())]


class DataCommand(TyperCommand):
    """A command whose help lists the fields of the data configs and their defaults.

    They are looked up when the help is asked for: other commands need not import the loaders.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help."""
        self.epilog = "\n\n".join(_fields(self.name or ""))
        super().format_help(ctx, formatter)


def _fields(command: str) -> Iterator[str]:
    """A paragraph with the fields of each modality that a command loads."""
    from maskstream.modalities import MODALITIES
    from maskstream.pages.doctor import MIDDLE_FRAME

    shown = {name: modality.data for name, modality in MODALITIES.items()}
    only: dict[str, dict[str, DataConfig[Any]]] = {"doctor": {"video": MIDDLE_FRAME}, "flow": {"video": shown["video"]}}
    for name, data in (only.get(command) or shown).items():
        found = (f"`{path}={value}`" for path, value in leaves(data.to_dict(defaults=True)))
        yield f"**{name}**: {', '.join(found)}"


def leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """The paths of all fields, and their values as `--set` takes them."""
    for name, own in value.items():
        if isinstance(own, Mapping):
            yield from leaves(own, f"{path}{name}.")
        elif name != VERSION and (path or name != KIND):
            yield f"{path}{name}", own if isinstance(own, str) else json.dumps(own)
