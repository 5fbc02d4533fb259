"""`maskstream bench`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .terminal import Data, Json, console


def bench(
    ctx: typer.Context,
    data: Data,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a batch.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes; 0 makes samples in threads.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each [default: one a core]", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="How long to measure.")] = 10.0,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", "--clips", min=1, help="Stop after so many samples, if that is earlier.", show_default=False
        ),
    ] = None,
    step_ms: Annotated[float, typer.Option(min=0, help="Time that a training step would take for each batch.")] = 0.0,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Try several workers and threads, for SECONDS each, and say what is fastest."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the loader on this machine: samples a second, bytes read, where the time goes, and what limits it.

    The loader is that of what the shards hold, with the mask that `preview` shows. Bytes that were read before come
    from memory: for the speed of a disk, use data larger than it, or a cold start.
    """
    from .. import bench as loader_bench
    from ..modalities import modality_of

    modality = modality_of(data)
    config = modality.data(**ctx.obj)
    if sweep:
        result = loader_bench.sweep(
            modality, data, config, batch_size=batch_size, device=device, for_s=seconds, step_s=step_ms / 1e3
        )
    else:
        result = loader_bench.measure(
            modality,
            data,
            config,
            batch_size=batch_size,
            device=device,
            for_s=seconds,
            samples=samples,
            step_s=step_ms / 1e3,
            workers=workers,
            threads=threads,
        )
    if as_json:
        print(json.dumps(result))
    else:
        loader_bench.show(modality, result, console)
