"""`maskstream fetch`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from .terminal import CacheGB, Data, errors, say


def fetch(
    data: Data,
    cache: Annotated[str, typer.Option(help="A folder on a local disk of this node.", show_default=False)],
    cache_gb: CacheGB = 100.0,
    lanes: Annotated[int, typer.Option(min=1, help="The lanes of the loaders.")] = 1,
    lane: Annotated[
        list[int] | None,
        typer.Option(min=0, help="A lane that this node reads, from 0; repeatable [default: all]", show_default=False),
    ] = None,
) -> None:
    """Fill the cache of this node before training: fetch the shards of a URL, or of the lanes that this node reads.

    What the cache has is checked and not fetched again, so the same command continues.
    """
    from maskstream.pipelines.modalities.node_cache import block_cache, shards_of
    from maskstream.shards.format.manifest import Manifest
    from maskstream.shards.stores.block_cache import fill

    kept = block_cache(data, cache, cache_gb)
    if kept is None:
        raise typer.BadParameter("give a folder", param_hint="--cache")
    manifest = Manifest.load(data, cache=kept)
    names = shards_of(manifest, lanes, range(lanes) if not lane else sorted(set(lane)))
    total = sum(map(manifest.store.size, names))
    if not kept.fits(total):
        raise ValueError(
            f"{len(names)} shards have {total / 1e9:.3g} GB, more than a cache of {cache_gb:g} GB holds; raise "
            "--cache-gb, or choose lanes"
        )
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=errors) as bar:
        task = bar.add_task(f"{len(names)} shards", total=total)
        fill(manifest.store, names, lambda size: bar.advance(task, size))
    say(f"{cache}: {len(names)} shards of {data}, {total / 1e6:.1f} MB")
