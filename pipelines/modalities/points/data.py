"""Data config of point clouds, which creates the rows of batches, and their loader."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from maskstream.pipelines.augment.diffusion import Noise
from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.modalities.data import RowConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.rows import BatchRows, Items, Masked, Memory, Traits
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.component import component_of
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import PositiveInt
from maskstream.shards.members.arrays import FEATURES

from .batch import PointsBatch
from .read import FACTS, NORMALS, PointAugment, PointPlan, PointSelection
from .tokens import PointTokens, VoxelTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsSettings:
    """Settings of masked point clouds.

    Attributes:
        select: Points to read; by default 2,048 per cloud.
        augment: Changes of the cloud; by default it is only scaled to the unit ball.
        tokens: Tokens that the mask selects; by default 8^3 cubes of 4^3 voxels.
        mask: Mask of `maskstream.pipelines.masks`; by default none.
        noise: Noise schedule of diffusion models: the loader draws noise and a time for each view.
        views: Number of views per sample. They share the points and differ in augmentation, noise and mask.
        component: Name of the point cloud to read, such as "points.npy"; required only if a sample has several.
        fields: Other values of a sample that stand in `batch.fields` (see `maskstream.pipelines.modalities.fields`).
    """

    select: PointSelection = field(default_factory=PointSelection)
    augment: PointAugment = field(default_factory=PointAugment)
    tokens: PointTokens = field(default_factory=VoxelTokens)
    mask: Mask | None = None
    noise: Noise | None = None
    views: PositiveInt = 1
    component: str | None = None
    fields: Fields = ()


@dataclass(frozen=True, kw_only=True)
class PointsOptions(Options, PointsSettings):
    """The options of `points_loader`."""


@takes_fields(PointsOptions)
def points_loader(location: Splits, options: PointsOptions) -> Loader[PointsBatch]:
    """Open the loader of masked point clouds: batch_size * views rows per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/modelnet40/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `PointsData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of point clouds.
    """
    return PointsData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsData(PointsSettings, RowConfig[PointPlan, PointsBatch]):
    """Data config of masked point clouds."""

    modality: ClassVar[str] = "points"
    alike: ClassVar[tuple[str, ...]] = ("select.points", "select.features", "tokens", "noise")

    @property
    def traits(self) -> Traits:
        """Many samples at once."""
        return Traits(together=16)

    def validate(self) -> None:
        check_cues(self.mask, "points", frozenset({"occupied"}))

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grid of "points", defined by `tokens`."""
        return {"points": self.tokens.grid}

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the tokens."""
        return (Masked("mask", self.mask, self.tokens.grid),)

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: A setting does not fit the split.
        """
        component = component_of(split.manifest.components, ("points",), self.component).name
        augment = self.augment
        if augment.rotate == "up":
            up = split.manifest.info["settings"].get("encoder", {}).get("up")
            if up not in ("x", "y", "z"):
                raise ValueError(
                    f"rotate='up': {split.manifest} does not say which axis points upwards; specify it "
                    "(data.augment.rotate=y or z), or write the shards with --set up=y or z"
                )
            augment = replace(augment, rotate=up)
        return replace(self, component=component, augment=augment)

    def plan(self, items: Items) -> list[PointPlan]:
        """Draw the rows of clouds.

        Raises:
            SampleError: A cloud lacks the requested rows or columns.
        """
        component, plans = items.manifest.component(self.component or ""), []
        for item, rng in zip(items, items.rngs("points", views=1), strict=True):
            member = item.manifest.member(item.index, component.name)
            with item.manifest.reading(item.index, component.name):
                facts = {name: component.facts[name][item.index] for name in FACTS}
                plans.append(self.select.rows_of(member, facts, rng, component.word(FEATURES, item.index)))
        return plans

    def layout(self, memory: Memory[PointPlan]) -> PointsBatch:
        """Create the empty batch."""
        points = self.select.points
        return PointsBatch(
            points=memory(np.float32, points, 3 + self.select.n_features),
            noise=None if self.noise is None else memory(np.float32, points, 3),
            time=None if self.noise is None else memory(np.int64),
            mask=None,
            key=memory.key,
            label=memory.label,
        )

    def fill(self, rows: BatchRows[PointPlan], batch: PointsBatch, stats: Stats) -> None:
        """Read the rows of clouds and create the views.

        Raises:
            SampleError: A cloud is unusable.
        """
        rngs, noise_rngs = rows.items.rngs("augment"), rows.items.rngs("noise")
        points, normals = rows.whole(batch.points), self.select.columns(*NORMALS)
        read = rows.read(self.component or "", stats)
        with stats.stage("convert"):
            for (item, plan, own), data in zip(rows, read, strict=True):
                with item.manifest.reading(item.index, self.component or ""):
                    taken = self.select.taken(data, plan)
                for at in range(own.start, own.stop):
                    points[at] = self.augment(taken, next(rngs), normals)
                    if self.noise is not None and batch.noise is not None and batch.time is not None:
                        drawn = self.noise.draw((self.select.points, 3), next(noise_rngs))
                        rows.whole(batch.time)[at], rows.whole(batch.noise)[at] = drawn

    def cues(
        self, rows: BatchRows[PointPlan], batch: PointsBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        """Return the mask inputs of a view, computed from the clean and the noised points."""
        row = rows.starts[n] + view
        clean = seen = batch.points[row]
        if self.noise is not None and batch.noise is not None and batch.time is not None:
            seen = self.noise.noised(clean[None, :, :3], batch.noise[row][None], batch.time[row][None])[0]
        return self.tokens.cues(clean, seen)
