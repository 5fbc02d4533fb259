"""Settings of loaders that commands have as options, too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from maskstream.shards.flag import RunFlag


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """The cache of what is read from URLs; it changes no batch. Shards of a node that fit are fetched whole."""

    cache: Annotated[
        str | Path | None, RunFlag("Folder on a local disk that caches what is read from a URL, for a whole node.")
    ] = None
    cache_gb: Annotated[float, RunFlag("Largest size of the cache in GB.", min=0.001)] = 100.0
