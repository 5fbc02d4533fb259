"""The loader of masked point clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ....shards.format.manifest import component_of
from ...augment.diffusion import Noise
from ...masks import Mask, TokenGrid
from ...stream.build import Build, LoaderOptions
from ...stream.loader import Loader
from .augment import PointAugment
from .batch import PointsBatch
from .read import PointSelection
from .sample import PointSampler
from .tokens import PointTokens, VoxelTokens


class PointsLoader(Loader[PointsBatch]):
    """A `Loader` of PointsBatch: `grid` is the token grid of its masks."""

    grid: TokenGrid


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
    **options: Unpack[LoaderOptions],
) -> PointsLoader:
    """A loader of masked clouds from a folder of shards (one split, such as `data/shards/modelnet40/train`).

    select: which points of a cloud are read, by default 2,048. augment: by default only a cloud's own ball becomes the
    unit ball. tokens: what the mask lies on, by default cubes of 4^3 of 32^3 voxels. mask: a pattern of
    `maskstream.pipelines.masks`, or None. noise: for diffusion models; each view then has a time and noise of its own,
    drawn like all else from (seed, epoch, key, view). views: a cloud is read once and gives so many views, each
    augmented, noised and masked on its own; a batch has batch_size * views. component: the cloud
    that is read where a sample has several; by default the only one. options: batch_size, seed, shuffle, workers and
    what else all loaders take (`build.LoaderOptions`).

    Errors: ValueError for settings, ShardError where the location holds no finished split of points.
    """
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    build = Build.of(location, "points", options)
    sampler = PointSampler(
        manifest=build.manifest,
        select=select or PointSelection(),
        augment=augment or PointAugment(),
        tokens=tokens or VoxelTokens(),
        mask=mask,
        noise=noise,
        seed=build.seed,
        views=views,
        component=component_of(build.manifest.components, ("points",), component).name,
    )
    loader = build.loader(PointsLoader, sampler)
    loader.grid = sampler.tokens.grid
    return loader
