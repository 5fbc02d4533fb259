"""Options that commands share: of those that load a split, and of those that read raw media."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from maskstream.shards.config.base import KIND, VERSION

if TYPE_CHECKING:
    from maskstream.pipelines.modalities.data import DataConfig
    from maskstream.preprocess import Executor, Limits

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
    typer.Option(
        "--modality",
        help="package.module:NAME of a modality of your own, or native: packed rows of images or videos.",
        show_default=False,
    ),
]
Component = Annotated[
    str | None,
    typer.Option(help="The component to read, such as cam0.mp4, of samples with several.", show_default=False),
]
Components = Annotated[
    list[str] | None,
    typer.Option(
        "--component",
        help="The component to read, such as cam0.mp4, of samples with several; given again for video: the clips of "
        "the same instants of each.",
        show_default=False,
    ),
]
Views = Annotated[
    int | None,
    typer.Option(min=1, help="Views per sample, each with its own crop, mask or step.", show_default=False),
]
Size = Annotated[int | None, typer.Option(help="Side of the pictures in pixels.", show_default=False)]
Frames = Annotated[int | None, typer.Option(help="Frames of a clip.", show_default=False)]
Stride = Annotated[int | None, typer.Option(help="Frames from one frame of a clip to the next.", show_default=False)]


def settings(set_: list[str] | None, **short: object) -> list[str]:
    """The settings of `--set`, and before them those of the short forms that were given; a list of one is that one."""
    one = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in short.items()}
    return [*(f"{name}={json.dumps(value)}" for name, value in one.items() if value is not None), *(set_ or ())]


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
    from maskstream.modalities import MODALITIES, WAYS
    from maskstream.pages.doctor import MIDDLE_FRAME

    shown = {name: modality.data for name, modality in (MODALITIES | WAYS).items()}
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


MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1 << 28,
        help="Pixels of a frame or an image; larger ones are rejected [default: 2^26 of a frame, 2^28 of an image]",
        show_default=False,
    ),
]
TimeLimit = Annotated[
    float,
    typer.Option(
        min=1, help="Seconds that a source may take, and 20 times as long as its media last; others are rejected."
    ),
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GB that a process may take; a source that needs more is rejected; 0: no limit [default: 2, or what the "
        "size, pixels and sound of the source allow]",
        show_default=False,
    ),
]


def chosen_limits(max_pixels: int | None, time_limit: float, memory_limit: float | None) -> Limits:
    """The limits that the options ask for."""
    from maskstream.preprocess import Limits

    limits = Limits(time_s=time_limit, memory_gb=memory_limit)
    return limits if max_pixels is None else replace(limits, frame_pixels=max_pixels, image_pixels=max_pixels)


_EXECUTORS = ("local", "ray")

Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes [default: one per core]", show_default=False),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="What runs the work: local (processes of this machine) or ray (a Ray cluster).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="With ray: auto, host:port or ray://host:port [default: $RAY_ADDRESS, or else a cluster of this machine]",
        show_default=False,
    ),
]


def executor_named(name: str, workers: int | None, address: str | None, also: tuple[str, ...] = ()) -> Executor | None:
    """The executor that the options ask for; None for processes of this machine, and for the names in `also`, which the
    command knows itself.
    """
    legal = (*_EXECUTORS, *also)
    if name not in legal:
        raise ValueError(f"--executor is one of {', '.join(legal)}, got {name!r}")
    if name != "ray":
        if address is not None:
            raise ValueError(f"--address {address} belongs to --executor ray")
        return None
    if workers is not None:
        raise ValueError(f"--workers {workers} does not go with --executor ray, which runs a task per processor")
    from maskstream.preprocess import RayExecutor

    return RayExecutor(address)
