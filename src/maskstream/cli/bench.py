"""`maskstream bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .data_options import Component, Frames, Masks, Own, Set, Size, Stride, Views, settings
from .terminal import Cache, CacheGB, Data, Json, console


def bench(
    data: Data,
    set_: Set = None,
    mask: Masks = None,
    component: Component = None,
    views: Views = None,
    size: Size = None,
    frames: Frames = None,
    stride: Stride = None,
    own: Own = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 uses threads only.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads per process [default: one per core]", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="How long to measure.")] = 10.0,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "--clips", min=1, help="Stop earlier, after this many samples.", show_default=False),
    ] = None,
    step_ms: Annotated[float, typer.Option(min=0, help="Simulated time of a training step per batch.")] = 0.0,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Try several numbers of workers and threads, SECONDS each."),
    ] = False,
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Video: measure which decoder is faster for each format, for backend='auto'."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="With --decode, the file to write [default: this user's decoders.json]", show_default=False),
    ] = None,
    cache: Cache = None,
    cache_gb: CacheGB = 100.0,
    as_json: Json = False,
) -> None:
    """Measure the loader on this machine: samples per second, bytes read, time per stage, and the bottleneck.

    The modality is that of the shards, and the masks are those of `preview`. Files that were read before come from the
    page cache: to measure a disk, use data larger than memory, or drop the cache first. With --decode it measures
    decoders instead and writes down which is faster, for `video_loader(backend="auto")` on this machine.
    """
    from maskstream import bench as loader_bench
    from maskstream.modalities import modality_of
    from maskstream.pipelines.modalities.split import open_manifest

    manifest = open_manifest(data, cache=cache, cache_gb=cache_gb)
    modality = modality_of(manifest, own)
    chosen = settings(set_, component=component, views=views, size=size, frames=frames, stride=stride)
    config = modality.chosen(chosen, mask or ())
    if decode:
        from maskstream.bench_decode import measure_decoders, show_decoders
        from maskstream.pipelines.modalities.video.decoders import decoders_path

        to = out or decoders_path()
        found = measure_decoders(manifest, config, out=to, device=device, threads=threads, for_s=seconds)
        if as_json:
            print(json.dumps(found))
        else:
            show_decoders(found, to, console)
        return
    if sweep:
        result = loader_bench.sweep(
            modality, manifest, config, batch_size=batch_size, device=device, for_s=seconds, step_s=step_ms / 1e3
        )
    else:
        result = loader_bench.measure(
            modality,
            manifest,
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
