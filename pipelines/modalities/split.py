"""A split that is about to be loaded: its manifest, the order of its samples, and where they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypedDict, Unpack

import torch

from maskstream.pipelines.stream.loader import DATASET_VERSION, Loader, LoaderOptions
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.pipelines.stream.topology import default_threads, resolved_device, resolved_ranks
from maskstream.shards.config import check_type
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest, SplitLocation

from .earlier_version import version_of_state
from .node_cache import CACHE_GB, block_cache, filled
from .sample_weights import SampleWeights, sample_weights


class SplitOptions(TypedDict, total=False):
    """How the samples of a split are gone through, whatever the modality."""

    seed: int
    """Of the order and of all that is drawn for samples; by default 0."""
    shuffle: bool
    """False is validation: every sample once, in order, padding marked by weight 0."""
    lanes: int
    """Groups of shards that are read side by side, by default 1; see `Order`."""
    block: int | None
    """Shards whose samples are mixed; None (the default) mixes all of a lane."""
    weights: SampleWeights
    """How often samples come: a number for each, a file of them, a field of `json`, or "balanced" for each label as
    often (see `sample_weights.py`); None (the default): every sample once an epoch."""


class VersionOptions(TypedDict, total=False):
    """Which version of a split is opened."""

    version: int | None
    """The number of a version; None (the default) is the current one. A saved position names its version."""


class StoreOptions(TypedDict, total=False):
    """How the bytes of a split are fetched; none of it changes a batch."""

    cache: str | Path | None
    """A folder on a local disk that keeps what is read of a URL, for all processes of the node; None keeps nothing."""
    cache_gb: float
    """The limit of the cache, in GB; by default 100. Shards that fit, of the node's lanes, are fetched whole."""


class OpenLoader(Protocol[BatchT]):
    """Opens a loader of the split at a location."""

    def __call__(self, location: SplitLocation, **options: Unpack[Options]) -> Loader[BatchT]: ...


class OpenedOptions(LoaderOptions, Generic[BatchT], total=False):
    """The options of a loader that can open another version of its split."""

    at_version: Callable[[Mapping[str, Any]], Loader[BatchT] | None]


class Options(SplitOptions, VersionOptions, StoreOptions, LoaderOptions, total=False):
    """What the function that opens a loader takes, whatever the modality."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A split and how its samples are gone through (see `SplitOptions`).

    device, workers, threads: where batches go and what makes them, which decides who decodes; they change nothing else.
    """

    manifest: Manifest
    seed: int = 0
    shuffle: bool = True
    lanes: int = 1
    block: int | None = None
    weights: SampleWeights = None
    device: torch.device
    workers: int = 0
    threads: int

    @classmethod
    def open(
        cls,
        location: SplitLocation,
        modality: str,
        *,
        device: str | torch.device = "auto",
        workers: int = 0,
        threads: int | None = None,
        version: int | None = None,
        **options: Unpack[SplitOptions],
    ) -> Self:
        """Opens the split in the folder `location`; ShardError where there is no finished split of the modality."""
        seed = options.get("seed", 0)
        check_type("seed=", seed, int)
        manifest = Manifest.load(location, version=version)
        if (found := manifest.info["modality"]) != modality:
            raise ShardError(
                f"{location} holds {found} shards, and {modality} shards are read here; open it with "
                f"{str(found).replace('-', '_')}_loader"
            )
        return cls(
            manifest=manifest,
            device=resolved_device(device),
            workers=workers,
            threads=threads or default_threads(workers),
            **(options | {"seed": int(seed)}),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The dataset in a saved position: a resume compares `dataset`, and the version says which one to open."""
        return {"dataset": self.manifest.fingerprint, DATASET_VERSION: self.manifest.version}

    @property
    def samples(self) -> SplitSamples:
        """The order of its samples."""
        return SplitSamples(
            shard_sizes=tuple(self.manifest.shard_samples.tolist()),
            seed=self.seed,
            lanes=self.lanes,
            block=self.block,
            shuffle=self.shuffle,
            weights=sample_weights(self.manifest, self.weights),
        )


def open_manifest(
    location: SplitLocation, *, version: int | None = None, cache: str | Path | None = None, cache_gb: float = CACHE_GB
) -> Manifest:
    """The manifest of a split, for several readers of it. See `VersionOptions` and `StoreOptions`.

    Raises ShardError where there is no finished split, ValueError for a cache of what is local or open already.
    """
    if not isinstance(location, Manifest):
        return Manifest.load(location, version=version, cache=block_cache(location, cache, cache_gb))
    if cache is not None:
        raise ValueError(f"cache={str(cache)!r}: {location} is open already; open it with the cache")
    return Manifest.load(location, version=version)


def open_split(
    location: SplitLocation, modality: str, options: Options, open_: OpenLoader[BatchT] | None = None
) -> tuple[Split, OpenedOptions[BatchT]]:
    """The split at a location, and the options of the loader that goes through it.

    open_: opens a loader of a location with options, for the version that a saved position needs. A manifest that is
    open already stays the version that it is.
    """
    storing = {name: value for name, value in options.items() if name in _OF_MANIFEST}
    ours = {name: value for name, value in options.items() if name in _OF_BOTH or name in SplitOptions.__annotations__}
    theirs = {name: value for name, value in options.items() if name in LoaderOptions.__annotations__}
    split = Split.open(open_manifest(location, **storing), modality, **ours)  # type: ignore[arg-type]
    if split.manifest.cache is not None:
        rank, world_size = resolved_ranks(options.get("rank"), options.get("world_size"), options.get("mesh"))
        filled(split.manifest, split.manifest.cache, split.lanes, rank, world_size)
    loading = OpenedOptions[BatchT](**theirs)  # type: ignore[typeddict-item]
    if open_ is not None and not isinstance(location, Manifest) and options.get("version") is None:
        loading["at_version"] = partial(_at_version, open_, split.manifest, location, options)
    return split, loading


def _at_version(
    open_: OpenLoader[BatchT], manifest: Manifest, location: str | Path, options: Options, state: Mapping[str, Any]
) -> Loader[BatchT] | None:
    """A loader of the version that a saved position needs; None if it is that of the manifest, or another split."""
    version = version_of_state(manifest.store, manifest.info, state)
    return None if version is None else open_(location, **(options | {"version": version}))


_OF_BOTH = ("device", "workers", "threads")
_OF_MANIFEST = (*VersionOptions.__annotations__, *StoreOptions.__annotations__)
