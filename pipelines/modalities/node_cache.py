"""The cache of a node, as a loader uses it: which shards the node reads, and whether all of them are fetched."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskstream.pipelines.stream.order import dealt
from maskstream.shards.format.dataset import is_split, read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.block_cache import BlockCache, Filling
from maskstream.shards.stores.url import is_url

log = logging.getLogger(__name__)

CACHE_GB = 100.0
"""The default limit of a cache, in GB."""


def block_cache(location: str | Path, folder: str | Path | None, gb: float = CACHE_GB) -> BlockCache | None:
    """The cache in a folder; None for no folder. Raises ValueError for too small a limit, and for a local location."""
    if folder is None:
        return None
    if not is_url(location) and not _names_urls(location):
        raise ValueError(f"cache={str(folder)!r} keeps what is read of a URL, and {location} is local; leave it out")
    return BlockCache(folder, int(gb * 1e9))


def _names_urls(location: str | Path) -> bool:
    """Whether a local split is merged of splits at URLs."""
    return is_split(location) and any(is_url(part["name"]) for part in read_dataset_json(location)["parts"])


def lanes_of_node(lanes: int, rank: int, world_size: int) -> range:
    """The lanes that the ranks of this rank's node read. torchrun says how many ranks a node has."""
    on_node = min(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), world_size)
    first = rank // on_node * on_node
    return range(first * lanes // world_size, -(-min(first + on_node, world_size) * lanes // world_size))


def shards_of(manifest: Manifest, lanes: int, chosen: Sequence[int]) -> list[str]:
    """The names of the shards of some of the lanes. Raises ValueError for a lane that there is not."""
    if wrong := [lane for lane in chosen if not 0 <= lane < lanes]:
        raise ValueError(f"lane {wrong[0]} of {lanes} lanes; they count from 0 to {lanes - 1}")
    sizes = np.bincount(manifest.shard, minlength=len(manifest.shard_names)).tolist()
    by_lane = dealt(tuple(sizes), lanes)
    return [manifest.shard_names[shard] for shard in sorted(shard for lane in chosen for shard in by_lane[lane])]


def filled(manifest: Manifest, cache: BlockCache, lanes: int, rank: int, world_size: int) -> Filling | None:
    """Begins to fill the cache with the whole shards of the node's lanes if they fit, in one process of the node."""
    own = lanes_of_node(lanes, rank, world_size)
    names = shards_of(manifest, lanes, own)
    of_node = sum(map(manifest.store.size, names))
    whole = cache.fits(of_node)
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if first:
        log.log(
            logging.INFO,
            "%s: this node reads %d of %d lanes, %.1f GB; the cache %s holds %.1f GB, so %s",
            manifest.location,
            len(own),
            lanes,
            of_node / 1e9,
            cache.folder,
            cache.limit_bytes / 1e9,
            "whole shards are fetched" if whole else "only what is read is kept",
        )
    return Filling(manifest.store, names) if whole and first else None
