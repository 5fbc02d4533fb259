"""Loader settings that are also command-line options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from maskstream.shards.flag import RunFlag


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Cache for data read from URLs; it does not change batches. Shards of a node are downloaded completely if they
    fit.
    """

    cache: Annotated[
        str | Path | None, RunFlag("Folder on a local disk that caches what is read from a URL, for a whole node.")
    ] = None
    cache_gb: Annotated[float, RunFlag("Largest size of the cache in GB.", min=0.001)] = 100.0
