"""Data config of point clouds, which creates the rows of batches, and their loader."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, Unpack

import numpy as np

from maskstream.pipelines.augment.diffusion import Noise
from maskstream.pipelines.masks import Cues, Mask, TokenGrid
from maskstream.pipelines.modalities.data import RowConfig, check_cues, check_settings
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.rows import BatchRows, Items, Masked, Memory, Traits
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.component import component_of
from maskstream.shards.members.arrays import FEATURES

from .batch import PointsBatch
from .read import FACTS, NORMALS, PointAugment, PointPlan, PointSelection
from .tokens import PointTokens, VoxelTokens


class PointsSettings(Options, total=False):
    """The fields of `PointsData`, with its defaults, and the options of all loaders."""

    select: PointSelection
    augment: PointAugment
    tokens: PointTokens
    mask: Mask | None
    noise: Noise | None
    views: int
    component: str | None
    fields: Fields


def points_loader(location: Splits, **settings: Unpack[PointsSettings]) -> Loader[PointsBatch]:
    """The loader of masked point clouds of the split in the folder `location`, such as `data/shards/modelnet40/train`.

    location: the path or URL of a split, or (location, weight) pairs of several, which are mixed as `mix` says.
    settings: the fields of `PointsData` (select, augment, tokens, mask, noise, ...) and the options of all loaders
    (`Options`: batch_size, seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of point clouds.
    """
    return PointsData.opened(location, settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsData(RowConfig[PointPlan, PointsBatch]):
    """The data config of masked point clouds.

    select: the points to read, by default 2,048 per cloud. augment: by default only scaling to the unit ball. tokens:
    the tokens of the mask, by default 8^3 cubes of 4^3 voxels. mask: a mask of `maskstream.pipelines.masks`, or None.
    noise: a noise schedule, for diffusion models; the loader then draws noise and a time for each view. views: the
    number of views per sample; they share the points and differ in augmentation, noise and mask. component: the point
    cloud to read, such as "points.npy"; None if a sample has only one. fields: other values of a sample for
    `batch.fields` (see fields.py).
    """

    modality: ClassVar[str] = "points"
    alike: ClassVar[tuple[str, ...]] = ("select.points", "select.features", "tokens", "noise")

    select: PointSelection = field(default_factory=PointSelection)
    augment: PointAugment = field(default_factory=PointAugment)
    tokens: PointTokens = field(default_factory=VoxelTokens)
    mask: Mask | None = None
    noise: Noise | None = None
    views: int = 1
    component: str | None = None
    fields: Fields = ()

    @property
    def traits(self) -> Traits:
        """Many samples at once."""
        return Traits(together=16)

    def __post_init__(self) -> None:
        check_settings(self, self.views)
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
                    f"rotate='up': {split.manifest} does not say which axis points upwards; name it (data.augment."
                    "rotate=y or z), or write the shards with --set up=y or z"
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
