"""One cloud on its way to a batch: draw its rows, read them, augment, add noise, mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import SampleError, StoreError
from ....shards.format.manifest import Manifest
from ...augment.diffusion import Noise
from ...masks import Cues, Draw, Mask
from ...masks.core.batch import MaskBatch
from ...stream.place import START, Place
from ...stream.rng import sample_rng
from ...stream.stats import Stats
from .augment import PointAugment
from .batch import PointsBatch
from .read import PointSelection, PointsError
from .tokens import PointTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSample:
    """The views of one cloud: points float32 (views, N, 3 + features), noise (views, N, 3), time int64 (views,)."""

    points: torch.Tensor
    noise: torch.Tensor | None
    time: torch.Tensor | None
    mask: MaskBatch | None
    label: int
    key: str
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class PointSampler:
    """Makes samples of one dataset; holds settings only, so that it can be sent to worker processes.

    Every random choice is a function of (seed, epoch, key, view): the rows are shared by the views of a sample; each
    view has an augmentation, a time, noise and a mask of its own.
    """

    manifest: Manifest
    select: PointSelection
    augment: PointAugment
    tokens: PointTokens
    mask: Mask | None
    noise: Noise | None
    seed: int
    views: int = 1
    component: str = "points.npy"

    @property
    def needs_progress(self) -> bool:
        """Whether its mask changes over the run."""
        return self.mask is not None and self.mask.needs_progress

    def make(self, index: int, epoch: int, place: Place = START) -> PointSample:
        """Sample `index` as the epoch shows it at its place in the run; SampleError where it cannot be used."""
        stats = Stats(samples=1)
        key = self.manifest.key(index)
        member = self.manifest.member(index, self.component)
        facts = self.manifest.components[self.component].facts_of(index)
        try:
            with stats.stage("read"):
                rows, stats.read_bytes = self.select.read(
                    self.manifest.store, member, facts, sample_rng(self.seed, epoch, key, 0, "points")
                )
        except (StoreError, PointsError) as error:
            raise SampleError(
                shard=self.manifest.shard_path(index).name, key=key, component=self.component, reason=str(error)
            ) from error
        with stats.stage("convert"):
            points = torch.from_numpy(np.stack([self._augmented(rows, epoch, key, v) for v in range(self.views)]))
            noise, time = self._noise(epoch, key)
        with stats.stage("mask"):
            mask = self._mask(points, noise, time, epoch, key, place)
        label = int(self.manifest.label[index])
        return PointSample(points=points, noise=noise, time=time, mask=mask, label=label, key=key, stats=stats)

    def _augmented(self, rows: npt.NDArray[np.float32], epoch: int, key: str, view: int) -> npt.NDArray[np.float32]:
        return self.augment(rows, sample_rng(self.seed, epoch, key, view, "augment"))

    def _noise(self, epoch: int, key: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if self.noise is None:
            return None, None
        shape = (self.select.points, 3)
        drawn = [self.noise.draw(shape, sample_rng(self.seed, epoch, key, v, "noise")) for v in range(self.views)]
        times, noise = zip(*drawn, strict=True)
        return torch.from_numpy(np.stack(noise)), torch.tensor(times, dtype=torch.int64)

    def _mask(
        self,
        points: torch.Tensor,
        noise: torch.Tensor | None,
        time: torch.Tensor | None,
        epoch: int,
        key: str,
        place: Place,
    ) -> MaskBatch | None:
        """The masks of the views, with what the mask asks to know of them."""
        if self.mask is None:
            return None
        noised = None
        if self.mask.needs and self.noise is not None and noise is not None and time is not None:
            noised = self.noise.noised(points[..., :3], noise, time)
        cues = [Cues()] * self.views
        if self.mask.needs:
            seen = points if noised is None else noised
            cues = [self.tokens.cues(clean, view) for clean, view in zip(points, seen, strict=True)]
        draws = [Draw.of(self.seed, epoch, key, view, place, cues[view]) for view in range(self.views)]
        return self.mask.draw(self.tokens.grid, draws)

    def collate(self, samples: list[PointSample]) -> PointsBatch:
        """Samples to a batch, the views of a sample one after the other."""
        masks = [s.mask for s in samples if s.mask is not None]
        noise = [s.noise for s in samples if s.noise is not None]
        times = [s.time for s in samples if s.time is not None]
        return PointsBatch(
            points=torch.cat([s.points for s in samples]),
            noise=torch.cat(noise) if noise else None,
            time=torch.cat(times) if times else None,
            mask=MaskBatch.concatenated(masks) if masks else None,
            label=torch.tensor([s.label for s in samples for _ in range(self.views)], dtype=torch.int64),
            key=[s.key for s in samples for _ in range(self.views)],
        )
