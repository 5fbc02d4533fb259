"""The points sampler: it draws and reads rows of point clouds, augments them, and draws noise and masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.format.manifest import Manifest
from ....shards.stores.base import Announcement, Range
from ...augment.diffusion import Noise
from ...masks import Cues, Draw, Maps, Mask
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .augment import PointAugment
from .batch import PointsBatch
from .read import PointSelection, Rows
from .tokens import PointTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class PointRequest:
    """The draws of a sample that precede reading: its rows."""

    wanted: Wanted
    key: str
    rows: Rows

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The byte ranges of the rows."""
        return self.rows.ranges


@dataclass(kw_only=True, slots=True)
class PointDraft:
    """The memory of a batch of B views. With k views per sample, row r is the views [r k, (r + 1) k).

    points: float32 (B, N, 3 + features). noise: float32 (B, N, 3), or None without noise. time: int64 (B,), unused
    without noise. label: int64 (B,). key, maps (masks): one per view; maps are None until they are drawn.
    """

    points: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32] | None
    time: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    key: list[str]
    maps: list[Maps | None]


@dataclass(frozen=True, kw_only=True)
class PointSampler:
    """Makes host batches of point clouds. It holds only settings, so it can be sent to worker processes.

    Every random draw is a function of (seed, epoch, key, view). The views of a sample share the rows; each view has its
    own augmentation, time, noise and mask.
    """

    manifest: Manifest
    select: PointSelection
    augment: PointAugment
    tokens: PointTokens
    pattern: Mask | None
    noise: Noise | None
    seed: int
    views: int = 1
    component: str = "points.npy"

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.pattern is not None and self.pattern.needs_progress

    def request(self, wanted: Wanted) -> PointRequest:
        """Draws the rows of a cloud; raises SampleError if it lacks the requested rows or columns."""
        index = wanted.index
        key = self.manifest.key(index)
        rng = sample_rng(self.seed, wanted.epoch, key, 0, "points")
        member = self.manifest.member(index, self.component)
        with self.manifest.reading(index, self.component):
            rows = self.select.rows_of(member, self.manifest.components[self.component].facts_of(index), rng)
        return PointRequest(wanted=wanted, key=key, rows=rows)

    def announce(self, request: PointRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, rows: int) -> PointDraft:
        """The memory of a batch of `rows` clouds."""
        n, points = rows * self.views, self.select.points
        return PointDraft(
            points=np.empty((n, points, 3 + self.select.features), dtype=np.float32),
            noise=None if self.noise is None else np.empty((n, points, 3), dtype=np.float32),
            time=np.empty(n, dtype=np.int64),
            label=np.empty(n, dtype=np.int64),
            key=[""] * n,
            maps=[None] * n,
        )

    def mask(self, request: PointRequest, draft: PointDraft, row: int) -> None:
        """Draws the masks of a row if they need no content."""
        if self.pattern is not None and not self.pattern.needs:
            for view in range(self.views):
                draft.maps[row * self.views + view] = self._maps(self.pattern, request, view, Cues())

    def fill(self, request: PointRequest, draft: PointDraft, row: int, stats: Stats) -> None:
        """Reads a row, and makes its views and the masks that need content; raises SampleError if it is unusable."""
        wanted, key = request.wanted, request.key
        with self.manifest.reading(wanted.index, self.component), stats.stage("read"):
            rows = self.select.taken(self.manifest.store, request.rows)
        stats.read_bytes += request.rows.size_bytes
        own = slice(row * self.views, (row + 1) * self.views)
        with stats.stage("convert"):
            for view in range(self.views):
                rng = sample_rng(self.seed, wanted.epoch, key, view, "augment")
                draft.points[own.start + view] = self.augment(rows, rng)
                if self.noise is not None and draft.noise is not None:
                    rng = sample_rng(self.seed, wanted.epoch, key, view, "noise")
                    at = own.start + view
                    draft.time[at], draft.noise[at] = self.noise.draw((self.select.points, 3), rng)
        draft.label[own] = self.manifest.label[wanted.index]
        draft.key[own] = [key] * self.views
        with stats.stage("mask"):
            if self.pattern is not None and self.pattern.needs:
                for view, cues in enumerate(self._cues(draft, own)):
                    draft.maps[own.start + view] = self._maps(self.pattern, request, view, cues)

    def join(self, draft: PointDraft) -> PointsBatch:
        """The host batch; the views of a sample are consecutive rows."""
        maps = [own for own in draft.maps if own is not None]
        return PointsBatch(
            points=torch.from_numpy(draft.points),
            noise=None if draft.noise is None else torch.from_numpy(draft.noise),
            time=None if draft.noise is None else torch.from_numpy(draft.time),
            mask=None if self.pattern is None else self.pattern.batched(self.tokens.grid, maps),
            label=torch.from_numpy(draft.label),
            key=draft.key,
        )

    def _cues(self, draft: PointDraft, own: slice) -> list[Cues]:
        """The cues of a cloud's views for its mask, from the clean and the noised points."""
        clean = torch.from_numpy(draft.points[own])
        seen = clean
        if self.noise is not None and draft.noise is not None:
            noise, time = torch.from_numpy(draft.noise[own]), torch.from_numpy(draft.time[own])
            seen = self.noise.noised(clean[..., :3], noise, time)
        return [self.tokens.cues(one, other) for one, other in zip(clean, seen, strict=True)]

    def _maps(self, mask: Mask, request: PointRequest, view: int, cues: Cues) -> Maps:
        wanted = request.wanted
        return mask.maps(self.tokens.grid, Draw.of(self.seed, wanted.epoch, request.key, view, wanted.place, cues))
