"""What the builders of all loaders share: the split that is read, the ranks, the device, and the order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar, Unpack

import numpy as np
import torch
import torch.distributed

from ...shards.errors import ShardError
from ...shards.format.manifest import Manifest
from ..masks import Mask, TokenGrid
from .loader import Loader, default_threads
from .order import Order
from .produce import Sampler
from .token_budget import BudgetOrder, budget_order

LoaderT = TypeVar("LoaderT", bound=Loader[Any])


class LoaderOptions(TypedDict, total=False):
    """What every builder of a loader takes, whatever the modality."""

    batch_size: int
    """Samples per rank; by default 8."""
    seed: int
    """Of the order and of all that is drawn for samples; by default 0."""
    device: str | torch.device
    """Where batches go; "auto" (the default) is the current CUDA device, the CPU without one."""
    shuffle: bool
    """False is validation: every sample once, in order, padding marked by weight 0."""
    lanes: int
    """Groups of shards that are read side by side, by default 1; see `Order`."""
    block: int | None
    """Shards whose samples are mixed; None (the default) mixes all of a lane."""
    rank: int | None
    """By default torch.distributed's, as is world_size."""
    world_size: int | None
    workers: int
    """Processes that make batches; 0 (the default) uses threads of this one."""
    threads: int | None
    """Threads of each process that make samples; by default the cores, shared by the workers."""
    prefetch: int
    """Batches that are made ahead, by default 3 (of each worker)."""
    max_bad_fraction: float
    """The share of samples that may be replaced because they cannot be used, by default 0.01."""
    steps: int | None
    """The length of the run in batches, for masks whose ratio changes over it."""
    token_budget: int | None
    """Visible tokens of a batch over all ranks: its size follows the mask's ratio, in multiples of batch_size x
    world_size; see `BudgetOrder`. None (the default): every batch has batch_size samples a rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """A split and checked options on the way to a loader of it. `threads` is a number, rank and world size are known.

    `loader` makes the loader once the modality has its sampler.
    """

    manifest: Manifest
    device: torch.device
    rank: int
    world_size: int
    threads: int
    batch_size: int = 8
    seed: int = 0
    shuffle: bool = True
    lanes: int = 1
    block: int | None = None
    workers: int = 0
    prefetch: int = 3
    max_bad_fraction: float = 0.01
    steps: int | None = None
    token_budget: int | None = None

    @classmethod
    def of(cls, location: str | Path, modality: str, options: LoaderOptions) -> Self:
        """Opens the split in the folder `location`. ValueError for options, ShardError where there is no finished split
        or one of another modality.
        """
        manifest = Manifest.load(_folder(location))
        if (found := manifest.info["modality"]) != modality:
            raise ShardError(
                f"{location} holds {found} shards, and {modality} shards are read here; open it with {found}_loader"
            )
        return cls(manifest=manifest, **_resolved(**options))

    def loader(
        self, kind: type[LoaderT], sampler: Sampler[Any], *, mask: Mask | None = None, grid: TokenGrid | None = None
    ) -> LoaderT:
        """A loader of the class `kind` whose samples `sampler` makes, with `mask` on `grid` for a token budget."""
        samples = Order(
            shard_sizes=tuple(np.bincount(self.manifest.shard, minlength=len(self.manifest.shard_names)).tolist()),
            global_batch=self.batch_size * self.world_size,
            seed=self.seed,
            lanes=self.lanes,
            block=self.block,
            shuffle=self.shuffle,
        )
        order: Order | BudgetOrder = samples
        if self.token_budget is not None:
            order = budget_order(samples, mask, grid, self.token_budget, self.steps)
        return kind(
            sampler,
            order,
            self.manifest.fingerprint,
            rank=self.rank,
            world_size=self.world_size,
            workers=self.workers,
            threads=self.threads,
            prefetch=self.prefetch,
            max_bad_fraction=self.max_bad_fraction,
            device=self.device,
            steps=self.steps,
        )


def _resolved(**options: Unpack[LoaderOptions]) -> dict[str, Any]:
    """The options with what stands for a default replaced by what it means here."""
    if (batch_size := options.get("batch_size", 8)) < 1:
        raise ValueError(f"batch_size={batch_size}: it must be 1 or more")
    rank, world_size = _topology(options.get("rank"), options.get("world_size"))
    threads = options.get("threads") or default_threads(options.get("workers", 0))
    device = _device(options.get("device", "auto"))
    return {**options, "rank": rank, "world_size": world_size, "threads": threads, "device": device}


def _folder(location: str | Path) -> Path:
    if "://" in str(location) or str(location).startswith("pipe:"):
        raise ValueError(f"location {str(location)!r}: a folder is read; copy or mount the shards under a local path")
    return Path(location)


def _topology(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None and world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set but torch.distributed is not initialised; call "
                "init_process_group first, or pass rank= and world_size="
            )
        return 0, 1
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise ValueError(f"rank={rank}, world_size={world_size}: pass both, with 0 <= rank < world_size")
    return rank, world_size


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    return torch.device(device)
