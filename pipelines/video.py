"""The loader of masked video clips."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed

from ..shards.errors import ShardError
from ..shards.manifest import Manifest
from .augment import Augmentation, CenterCrop, MultiScaleCrop
from .batch import VideoBatch
from .clip import VideoClip
from .decode.backend import choose_backend
from .flow.codec import ANCHOR_STRIDE
from .loader import Loader, default_threads
from .masks import Mask, TokenGrid
from .order import Order
from .video_sample import VideoSampler


class VideoLoader(Loader[VideoBatch]):
    """A `Loader` of VideoBatch: `grid` is the token grid of its masks, `flow` the source that was chosen."""

    grid: TokenGrid
    clip: VideoClip
    flow: Literal["codec", "dis"] | None


def video_loader(
    location: str | Path,
    *,
    clip: VideoClip | None = None,
    mask: Mask | None = None,
    batch_size: int = 8,
    seed: int = 0,
    device: str | torch.device = "auto",
    backend: Literal["auto", "cpu", "dali"] = "auto",
    augment: Augmentation | None = None,
    flow: Literal["auto", "codec", "dis", "none"] = "auto",
    views: int = 1,
    tubelet: int = 2,
    patch: int = 16,
    shuffle: bool = True,
    lanes: int = 1,
    block: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    workers: int = 0,
    threads: int | None = None,
    prefetch: int = 3,
    max_bad_fraction: float = 0.01,
    steps: int | None = None,
) -> VideoLoader:
    """A loader of masked clips from a folder of shards (one split, such as `data/shards/k400/train`).

    batch_size is samples per rank; with `views=k` each is decoded once and gives k clips with crops and masks of
    their own, so a batch has batch_size * k clips. mask: a pattern of `maskstream.pipelines.masks`, or None. augment:
    by default the multi-scale crop of VideoMAE when shuffled, the central crop otherwise; nothing is flipped unless
    it says so. flow: where motion comes from; "auto" is no flow for masks that need none, the codec's motion vectors
    where the shards allow it, else DIS. shuffle=False is validation: every sample once, padding marked by weight 0.
    rank and world_size default to torch.distributed's. workers: processes (0: threads of this one), threads: decoding
    threads of each. steps: the length of the run in batches, for masks whose ratio changes over it.

    Errors: ValueError for settings, ShardError where the location holds no finished split.
    """
    clip = clip or VideoClip()
    manifest = Manifest.load(_folder(location))
    if manifest.info["modality"] != "video":
        raise ShardError(f"{location} holds {manifest.info['modality']} shards; video_loader reads video")
    if views < 1 or batch_size < 1:
        raise ValueError(f"batch_size={batch_size}, views={views}: both must be 1 or more")
    rank, world_size = _topology(rank, world_size)
    anchored = manifest.info["profile"] == "train" and clip.stride % ANCHOR_STRIDE == 0
    if clip.align is None:
        clip = replace(clip, align=ANCHOR_STRIDE if anchored else 1)
    target = _device(device)
    source = _flow_source(flow, mask, clip, manifest.info["profile"])
    sampler = VideoSampler(
        manifest=manifest,
        clip=clip,
        grid=TokenGrid.video(clip.frames, clip.size, clip.size, tubelet=tubelet, patch=patch),
        augment=augment or (MultiScaleCrop() if shuffle else CenterCrop()),
        mask=mask,
        flow=source,
        seed=seed,
        views=views,
    )
    order = Order(
        shard_sizes=tuple(np.bincount(manifest.shard, minlength=len(manifest.shard_names)).tolist()),
        global_batch=batch_size * world_size,
        seed=seed,
        lanes=lanes,
        block=block,
        shuffle=shuffle,
    )
    loader = VideoLoader(
        choose_backend(backend, sampler, target, threads or default_threads(workers), workers),
        order,
        manifest.fingerprint,
        rank=rank,
        world_size=world_size,
        workers=workers,
        threads=threads or default_threads(workers),
        prefetch=prefetch,
        max_bad_fraction=max_bad_fraction,
        device=target,
        steps=steps,
    )
    loader.grid, loader.clip, loader.flow = sampler.grid, clip, source
    return loader


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


def _flow_source(flow: str, mask: Mask | None, clip: VideoClip, profile: str) -> Literal["codec", "dis"] | None:
    if flow not in ("auto", "none", "codec", "dis"):
        raise ValueError(f"flow={flow!r}; legal are 'auto', 'codec', 'dis' and 'none'")
    needed = mask is not None and "flow" in mask.needs
    if flow == "none" and needed:
        raise ValueError(f"{mask} needs flow, and flow='none' was given; use 'auto', 'codec' or 'dis'")
    if flow == "none" or (flow == "auto" and not needed):
        return None
    usable = profile == "train" and clip.stride == ANCHOR_STRIDE and (clip.align or 1) % ANCHOR_STRIDE == 0
    if flow == "codec" and not usable:
        raise ValueError(
            f"flow='codec' with shards of profile {profile!r}, stride {clip.stride}, align {clip.align}: motion "
            f"vectors are flow only in the profile 'train' at stride {ANCHOR_STRIDE} and align {ANCHOR_STRIDE}; "
            "use flow='dis'"
        )
    return "codec" if usable and flow != "dis" else "dis"
