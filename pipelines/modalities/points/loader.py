"""The loader of masked point clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ....shards.format.manifest import component_of
from ...augment.diffusion import Noise
from ...masks import Mask
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..split import Options, Split, split_of
from .augment import PointAugment
from .batch import PointsBatch
from .data import PointsData
from .read import PointSelection
from .sample import PointDraft, PointRequest, PointSampler
from .tokens import PointTokens, VoxelTokens

PointsSource = Source[PointRequest, PointDraft, PointsBatch, PointsBatch]


def points_loader(
    location: str | Path,
    *,
    select: PointSelection | None = None,
    augment: PointAugment | None = None,
    tokens: PointTokens | None = None,
    mask: Mask | None = None,
    noise: Noise | None = None,
    views: int = 1,
    component: str | None = None,
    **options: Unpack[Options],
) -> Loader[PointsBatch]:
    """A loader of masked clouds from a folder of shards (one split, such as `data/shards/modelnet40/train`).

    select: which points of a cloud are read, by default 2,048. augment: by default only a cloud's own ball becomes the
    unit ball. tokens: what the mask lies on, by default cubes of 4^3 of 32^3 voxels. mask: a pattern of
    `maskstream.pipelines.masks`, or None. noise: for diffusion models; each view then has a time and noise of its own,
    drawn like all else from (seed, epoch, key, view). views: a cloud is read once and gives so many views, each
    augmented, noised and masked on its own; a batch has batch_size * views. component: the cloud that is read
    where a sample has several; by default the only one. options: batch_size, seed, shuffle, workers and what else all
    loaders take (`Options`).

    Errors: ValueError for settings, ShardError where the location holds no finished split of points.
    """
    split, loading = split_of(location, "points", options)
    sampler = points_sampler(
        split, select=select, augment=augment, tokens=tokens, mask=mask, noise=noise, views=views, component=component
    )
    return Loader(points_source(split, sampler), **loading)


def points_sampler(
    split: Split,
    *,
    select: PointSelection | None = None,
    augment: PointAugment | None = None,
    tokens: PointTokens | None = None,
    mask: Mask | None = None,
    noise: Noise | None = None,
    views: int = 1,
    component: str | None = None,
) -> PointSampler:
    """What makes masked clouds of a split; the settings are those of `points_loader`."""
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    return PointSampler(
        manifest=split.manifest,
        select=select or PointSelection(),
        augment=augment or PointAugment(),
        tokens=tokens or VoxelTokens(),
        mask_of=mask,
        noise=noise,
        seed=split.seed,
        views=views,
        component=component_of(split.manifest.components, ("points",), component).name,
    )


def chosen(sampler: PointSampler) -> PointsData:
    """What decides the batches, with all that was left to choose chosen: what a resume compares."""
    return PointsData(
        select=sampler.select,
        augment=sampler.augment,
        tokens=sampler.tokens,
        mask=sampler.mask_of,
        noise=sampler.noise,
        views=sampler.views,
        component=sampler.component,
    )


def points_source(split: Split, sampler: PointSampler) -> PointsSource:
    """The clouds of a split as a source, which a loader or a mixture goes through."""
    return Source(
        sampler=sampler,
        finish=Unchanged(),
        samples=split.samples,
        identity={"data": chosen(sampler).to_dict(identity=True), "dataset": split.manifest.fingerprint},
        visible=visible_tokens((sampler.mask_of, sampler.tokens.grid)),
        form={
            "points": sampler.select.points,
            "features": sampler.select.features,
            "tokens": sampler.tokens,
            "views": sampler.views,
            "mask": sampler.mask_of,
            "noise": sampler.noise,
        },
    )
