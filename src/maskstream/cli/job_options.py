"""The options of commands that read raw media: what a source may cost, and where the tasks of a job run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskstream.preprocess import Limits
if TYPE_CHECKING:
    from maskstream.preprocess import Executor

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


def limits_of(max_pixels: int | None, time_limit: float, memory_limit: float | None) -> Limits:
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
