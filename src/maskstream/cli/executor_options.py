"""The options that say where the tasks of a job run, of the commands that write shards and indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskstream.preprocess import Executor

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
