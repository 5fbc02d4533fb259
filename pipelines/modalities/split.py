"""A split to be loaded: its manifest, the order and weights of its samples, and the target device.

    weights="balanced"             sample every label equally often
    weights="quality"              number `quality` in the `json` of each sample, read once at the start
    weights="weights.csv"          columns key and weight; samples without a line have weight 0
    weights="weights.npy"          float (N,), in the order of the split
    weights=numbers                the same as an array or a sequence

A sample of weight w appears w N / sum times in an epoch of N samples; see stream/order.py.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.pipelines.stream.loader import DATASET_VERSION, LoaderOptions, ProcessOptions
from maskstream.pipelines.stream.order import Weights, dealt
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.pipelines.stream.topology import default_threads, resolve_device, resolve_ranks
from maskstream.pipelines.stream.weights import MixOptions, Weight
from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.errors import ResumeError, ShardError
from maskstream.shards.format.dataset import read_description
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.rejects import read_curated, read_removed
from maskstream.shards.limits import check_value
from maskstream.shards.media.npy import NpyError, read_npy
from maskstream.shards.named import nearest
from maskstream.shards.stores.base import Store
from maskstream.shards.stores.block_cache import BlockCache, CacheFilling

from .settings import CacheSettings

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def check_cache(cache: str | Path | None, manifests: Sequence[Manifest]) -> None:
    """Raise ValueError for a cache of splits that are all local."""
    if cache is not None and all(one.cache is None for one in manifests):
        raise ValueError(f"cache={str(cache)!r} is only for data at URLs, but {manifests[0]} is local; leave it out")


def select_lanes_of_node(lanes: int, rank: int, world_size: int) -> range:
    """Return the lanes that the ranks of this node read; torchrun provides the number of ranks per node."""
    on_node = min(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), world_size)
    first = rank // on_node * on_node
    return range(first * lanes // world_size, -(-min(first + on_node, world_size) * lanes // world_size))


def list_shards(manifest: Manifest, lanes: int, chosen: Sequence[int]) -> list[str]:
    """Return the names of the shards in some lanes.

    Raises:
        ValueError: A lane does not exist.
    """
    if wrong := [lane for lane in chosen if not 0 <= lane < lanes]:
        raise ValueError(f"got lane {wrong[0]} of {lanes} lanes; expected 0 to {lanes - 1}")
    sizes = np.bincount(manifest.shard, minlength=len(manifest.shard_names)).tolist()
    by_lane = dealt(tuple(sizes), lanes)
    return [manifest.shard_names[shard] for shard in sorted(shard for lane in chosen for shard in by_lane[lane])]


def filled(manifest: Manifest, cache: BlockCache, lanes: int, rank: int, world_size: int) -> CacheFilling | None:
    """Start to download the node's lanes into the cache as whole shards if they fit, in one process of the node."""
    own = select_lanes_of_node(lanes, rank, world_size)
    names = list_shards(manifest, lanes, own)
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
            "whole shards are fetched" if whole else "only the bytes that are read are cached",
        )
    return CacheFilling(manifest.store, names) if whole and first else None


SampleWeights = str | Path | Sequence[float] | npt.NDArray[np.floating] | None
"""Type of `weights=`."""
BALANCED = "balanced"
_JSON = "json"
_AT_ONCE = 1024


def sample_weights(manifest: Manifest, given: SampleWeights) -> Weights | None:
    """Compute the weights of a split's samples.

    Raises:
        ValueError: `given` is not a valid source of weights.
        ShardError: A field cannot be read.
    """
    if given is None:
        return None
    if not isinstance(given, str | Path):
        return Weights(np.asarray(given, np.float64))
    suffix = Path(given).suffix.lower()
    if suffix == ".npy":
        return Weights(_weigh_by_array(Path(given)))
    if suffix == ".csv":
        return Weights(_weigh_by_table(manifest, Path(given)))
    return Weights(_balance_weights(manifest) if given == BALANCED else _weigh_by_field(manifest, str(given)))


def _balance_weights(manifest: Manifest) -> Float64s:
    """Return 1 / number of samples with the same label for each sample; 0 without a label."""
    label = manifest.label
    if not (label >= 0).any():
        raise ValueError(f"weights={BALANCED!r}: no sample has a label; pass the weights themselves")
    counts = np.bincount(label[label >= 0])
    return np.where(label >= 0, 1.0 / counts[np.maximum(label, 0)].clip(1), 0.0)


def _weigh_by_array(path: Path) -> Float64s:
    try:
        return read_npy(path.read_bytes()).astype(np.float64)
    except (OSError, NpyError, ValueError) as error:
        raise ValueError(f"weights={str(path)!r} is not a file of numbers ({error})") from error


def _weigh_by_table(manifest: Manifest, path: Path) -> Float64s:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row["key"], float(row["weight"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"weights={str(path)!r} is not a csv file with the columns key and weight ({type(error).__name__}: {error})"
        ) from error
    found = dict(rows)
    if twice := [key for key, lines in Counter(key for key, _ in rows).items() if lines > 1][:1]:
        raise ValueError(f"weights={str(path)!r} has the key {twice[0]!r} on several lines; keep only one of them")
    keys = manifest.keys(range(len(manifest)))
    if unknown := sorted(found.keys() - {*keys})[:1]:
        raise ValueError(f"weights={str(path)!r} has the key {unknown[0]!r}, which is not in the split; remove it")
    return np.array([found.get(key, 0.0) for key in keys])


def _weigh_by_field(manifest: Manifest, name: str) -> Float64s:
    if _JSON not in manifest.components:
        raise ValueError(f"weights={name!r}: the samples have no json; pass a file of weights (.csv or .npy)")
    if name in manifest.components[_JSON].facts:
        return np.asarray(manifest.components[_JSON].facts[name], np.float64)
    values = np.empty(len(manifest))
    for first in range(0, len(values), _AT_ONCE):
        some = range(first, min(first + _AT_ONCE, len(values)))
        read = manifest.store.read_many([manifest.member(index, _JSON) for index in some])
        for index, data in zip(some, read, strict=True):
            try:
                values[index] = float(json.loads(data)[name])
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ShardError(
                    f"weights={name!r}{nearest(name, [BALANCED])}: the json of sample {manifest.key(index)!r} has no "
                    f"such number ({type(error).__name__}: {error}); pass {BALANCED!r}, a field that all samples have, "
                    "a .csv or .npy file, or an array"
                ) from error
    return values


def open_manifest_of_state(manifest: Manifest, state: Mapping[str, Any]) -> Manifest:
    """Open the version of a split that a saved position needs; warns if it is not the current one.

    It has the samples and order of the position's version. Samples excluded by a later curation are kept; removed or
    erased samples are not. Returns `manifest` itself if it already matches, or if the position apparently belongs to
    another split, so that the resume reports the difference.

    Args:
        manifest: Current version of the split.
        state: Saved position of a loader.

    Raises:
        ResumeError: The split no longer has the version.
    """
    saved, info = state.get(DATASET_VERSION), manifest.info
    if not isinstance(saved, int) or not 0 < saved < manifest.version:
        return manifest
    found, gone = dict[int, dict[str, Any]](), None
    for version in range(manifest.version, saved - 1, -1):
        try:
            one = info if version == manifest.version else read_description(manifest.store, version)
        except ShardError as error:
            gone = error
            continue
        if one["fingerprint"] == state.get("dataset"):
            found[version] = one
    if not found:
        if gone is None:
            return manifest
        raise ResumeError(
            f"the position was saved with version {saved} of {manifest.location}, which can no longer be "
            f"opened ({gone}). Put the files of that version back, or start a new run on the current version"
        ) from gone
    if saved not in found:
        log.warning(
            "version %d of %s, with which the position was saved, can no longer be opened (%s); version %d has "
            "its samples in the same order, but possibly not all of them",
            saved,
            manifest.location,
            gone,
            min(found),
        )
    first = found[min(found)]
    removed = np.union1d(read_removed(manifest.store, first), _list_removed_since(manifest.store, info, first))
    alike = (at for at, one in found.items() if np.array_equal(read_removed(manifest.store, one), removed))
    version = next(alike, min(found))
    if version == manifest.version:
        return manifest
    opened = Manifest.load(manifest, version=version)
    own = opened.whole_numbers(np.arange(len(opened)))
    log.warning(
        "the position was saved with version %d of %s, but version %d is current: opening version %d, which has "
        "the same samples in the same order, without %d that were removed; a new run reads the current one",
        saved,
        manifest.location,
        manifest.version,
        version,
        len(removed),
    )
    return replace(opened, removed=np.flatnonzero(np.isin(own, removed, assume_unique=True)))


def _list_removed_since(store: Store, current: Mapping[str, Any], earlier: Mapping[str, Any]) -> Int64s:
    """Return the numbers, in an earlier version, of samples that the current version has removed (rather than curated
    out).
    """
    numbers = np.setdiff1d(read_removed(store, current), read_curated(store, current), assume_unique=True)
    begins = dict(zip((part["name"] for part in earlier["parts"]), _starts(earlier), strict=True))
    found = [np.empty(0, np.int64)]
    for part, start in zip(current["parts"], _starts(current), strict=True):
        if part["name"] in begins:
            within = numbers[(numbers >= start) & (numbers < start + part["samples"])]
            found.append(within - start + begins[part["name"]])
    return np.concatenate(found)


def _starts(info: Mapping[str, Any]) -> list[int]:
    """Return the number of the first sample of each part."""
    return [0, *accumulate(part["samples"] for part in info["parts"])][:-1]


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """The order of the samples of a split, whatever the modality.

    Attributes:
        seed: Random seed of the order and of all that is drawn for samples.
        shuffle: False is validation: every sample once, in order, with padding of weight 0.
        lanes: Groups of shards that are read side by side (see `Order`).
        block: Number of shards whose samples are shuffled together; by default all of a lane.
        weights: How often samples are drawn: a number for each, a file of numbers, the name of a number in `json`, or
            "balanced", which draws each label equally often. None: every sample once per epoch.
    """

    seed: int = 0
    shuffle: bool = True
    lanes: int = 1
    block: int | None = None
    weights: SampleWeights = None


@dataclass(frozen=True, kw_only=True)
class VersionOptions:
    """Which version of a split is opened.

    Attributes:
        version: Version of the split; defaults to the current one, or to the version of a loaded position.
    """

    version: int | None = None


Splits = SplitLocation | Sequence[tuple[SplitLocation, Weight]]
"""The path or URL of a split, or (location, weight) pairs of several that are mixed."""


@dataclass(frozen=True, kw_only=True)
class SharedOptions(MixOptions, CacheSettings, ProcessOptions, VersionOptions, SplitOptions):
    """Options of all loaders, however a batch is filled."""

    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        "num_workers": ": it is workers= here",
        "prefetch_factor": ": it is prefetch= here",
        "timeout": ": it is worker_timeout= here",
        "persistent_workers": ": workers are kept between epochs",
        "pin_memory": ": device= selects where batches are created",
        "drop_last": ": shuffled epochs contain only full batches, and shuffle=False returns every sample",
        "sampler": ": weights= sets how often samples are drawn",
        "collate_fn": ": as_dataset(convert) converts batches",
        "decoders": ": the decoder is chosen by an estimate, which is logged; backend= and output= override it",
    }
    """Parameters of PyTorch's DataLoader and of earlier releases, and their equivalents here."""


@dataclass(frozen=True, kw_only=True)
class Options(SharedOptions, LoaderOptions):
    """Options of a loader whose batches count samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split(SplitOptions):
    """A split and how its samples are gone through (see `SplitOptions`).

    device, workers, threads: Where batches go and what creates them, which decides who decodes; they change nothing
    else. kept: int64 (n,), sorted, numbers of the samples to use; None for all.
    """

    manifest: Manifest
    device: torch.device
    workers: int = 0
    threads: int
    kept: Int64s | None = None

    @classmethod
    def open(
        cls,
        location: SplitLocation,
        modality: str | tuple[str, ...],
        *,
        device: str | torch.device = "auto",
        workers: int = 0,
        threads: int | None = None,
        version: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> Self:
        """Opens the split in the folder `location`; ShardError if there is no finished split of the modality, or of one
        of several.
        """
        check_value("seed", seed, int)
        manifest = Manifest.load(location, version=version)
        taken = (modality,) if isinstance(modality, str) else modality
        if (found := manifest.info["modality"]) not in taken:
            raise ShardError(
                f"{location} contains {found} shards, but this loader reads {' or '.join(taken)} shards; open "
                f"it with {str(found).replace('-', '_')}_loader"
            )
        return cls(
            manifest=manifest,
            device=resolve_device(device),
            workers=workers,
            threads=default_threads(workers) if threads is None else max(threads, 1),
            seed=int(seed),
            shuffle=shuffle,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the dataset in a saved position: a resume compares `dataset`, and opens the stored version."""
        kept = {} if self.kept is None else {"kept": xxhash.xxh3_128_hexdigest(self.kept.tobytes())}
        return {"dataset": self.manifest.fingerprint, DATASET_VERSION: self.manifest.version, **kept}

    @property
    def samples(self) -> SplitSamples:
        """Samples in order; only those that are kept are numbered."""
        sizes, weights = self.manifest.shard_samples, sample_weights(self.manifest, self.weights)
        if self.kept is not None:
            sizes = np.bincount(self.manifest.shard[self.kept], minlength=len(sizes))
            weights = None if weights is None else Weights(weights.values[self.kept])
        return SplitSamples(
            shard_sizes=tuple(sizes.tolist()),
            seed=self.seed,
            lanes=self.lanes,
            block=self.block,
            shuffle=self.shuffle,
            weights=weights,
        )


def open_manifest(
    location: SplitLocation,
    *,
    version: int | None = None,
    cache: str | Path | None = None,
    cache_gb: float = CacheSettings.cache_gb,
) -> Manifest:
    """The manifest of a split, for several readers of it. See `VersionOptions` and `CacheSettings`.

    If an earlier version was requested, a warning reports how many of its samples were removed later. Raises ShardError
    if there is no finished split, ValueError for a cache that is too small, or for a cache of a split that is already
    open.
    """
    if not isinstance(location, Manifest):
        kept = None if cache is None else BlockCache(cache, int(cache_gb * 1e9))
        manifest = Manifest.load(location, version=version, cache=kept)
        if version is not None and (current := read_description(manifest.store))["version"] > version:
            since = _list_removed_since(manifest.store, current, manifest.info)
            if count := len(np.setdiff1d(since, read_removed(manifest.store, manifest.info))):
                log.warning(
                    "version %d of %s contains %d samples that were removed later; they are read because this "
                    "version was requested; `maskstream erase` destroys samples in all versions",
                    version,
                    manifest.location,
                    count,
                )
        return manifest
    if cache is not None:
        raise ValueError(f"cache={str(cache)!r}: {location} is already open; open it with the cache from the start")
    return Manifest.load(location, version=version)


def open_split(location: SplitLocation, modality: str | tuple[str, ...], options: Options) -> Split:
    """Open the split at a location for a loader with these options."""
    manifest = open_manifest(location, version=options.version, cache=options.cache, cache_gb=options.cache_gb)
    split = Split.open(
        manifest, modality, device=options.device, workers=options.workers, threads=options.threads, seed=options.seed
    )
    check_cache(options.cache, [split.manifest])
    if split.manifest.cache is not None:
        rank, world_size = resolve_ranks(options.rank, options.world_size, options.mesh)
        filled(split.manifest, split.manifest.cache, options.lanes, rank, world_size)
    return replace(split, shuffle=options.shuffle, lanes=options.lanes, block=options.block, weights=options.weights)
