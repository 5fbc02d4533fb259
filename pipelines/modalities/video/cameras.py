"""Rows of samples with several videos, such as the cameras of a robot: clips of the same instants.

The clock is the time since the start of each video. The first camera draws the clip from the frames whose instants
exist in all videos; every other camera contributes the frames that are nearest in time, at its own frame rate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskstream.pipelines.masks import Cues
from maskstream.pipelines.modalities.rows import BatchRows, Item, Items, Masked, Memory, RowMaker, Traits
from maskstream.pipelines.stream.sampler import Finish
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Bools, Float64s, Int64s
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.video_index import VideoIndex

from .batch import VideoBatch
from .clip_plan import ClipPlan
from .rows import ClipRowMaker

if TYPE_CHECKING:
    import torch

    from maskstream.pipelines.modalities.split import Split

log = logging.getLogger(__name__)

_MASK_OF = "mask of "


def rates(manifest: Manifest, component: str, samples: slice = slice(None)) -> tuple[Int64s, Float64s]:
    """Return the number of frames, int64 (N,), and frames per second, float64 (N,), of each sample's video; 0 without
    one.
    """
    facts = manifest.component(component).facts
    return facts["n_frames"][samples].astype(np.int64), facts["fps"][samples].astype(np.float64)


def find_frames_of_all(manifest: Manifest, cameras: Sequence[str], samples: slice = slice(None)) -> Int64s:
    """Count the frames of each sample's first camera whose instants exist in all cameras, int64 (N,), at least 1.

    A camera covers an instant if its frame nearest in time exists.
    """
    common, fps = rates(manifest, cameras[0], samples)
    for camera in cameras[1:]:
        n_frames, own_fps = rates(manifest, camera, samples)
        until = (n_frames - 0.5) * fps / np.where(own_fps > 0, own_fps, 1.0)
        common = np.minimum(common, np.ceil(until).astype(np.int64))
    return np.maximum(common, 1)


def lacking(manifest: Manifest, cameras: Sequence[str]) -> Bools:
    """Return which samples lack one of the cameras, bool (N,)."""
    missing: Bools = ~manifest.component(cameras[0]).present
    for camera in cameras[1:]:
        missing |= ~manifest.component(camera).present
    return missing


def has_one_rate(manifest: Manifest, cameras: Sequence[str] | None) -> bool:
    """Return whether frame numbers of the same instants agree between all cameras of each sample.

    `cameras` is `VideoData.component`; a string or None means one camera.
    """
    if cameras is None or isinstance(cameras, str):
        return True
    n_frames, fps = rates(manifest, cameras[0])
    there = ~lacking(manifest, cameras)
    drift = [np.abs(rates(manifest, one)[1][there] / fps[there] - 1) * n_frames[there] for one in cameras[1:]]
    return all(bool((one < 0.5).all()) for one in drift)


def with_all_cameras(split: Split, cameras: Sequence[str]) -> Split:
    """Drop samples that lack a camera, with a warning.

    Raises:
        ValueError: No sample has all cameras.
    """
    manifest = split.manifest
    without = lacking(manifest, cameras)
    without[manifest.removed] = False
    if not without.any():
        return split
    each = {one: int((~manifest.component(one).present & without).sum()) for one in cameras}
    told = ", ".join(f"{count} lack {one}" for one, count in each.items() if count)
    first = manifest.key(int(np.argmax(without)))
    kept = np.flatnonzero(~without)
    if not len(kept):
        raise ValueError(f"component={tuple(cameras)}: no sample in {manifest.location} has all of them ({told})")
    log.warning(
        "%s: %d of %d samples do not have all of %s and are left out (%s, such as %r): an epoch has %d samples",
        manifest.location,
        without.sum(),
        len(without),
        ", ".join(cameras),
        told,
        first,
        len(kept),
    )
    return replace(split, kept=kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class CamerasRowMaker(RowMaker[ClipPlan, VideoBatch]):
    """Creates rows with the clips of several cameras: the first camera's as the batch itself, and the others in
    `others`.
    """

    first: ClipRowMaker
    others: tuple[ClipRowMaker, ...]

    @property
    def traits(self) -> Traits:
        """Traits of the first camera; parts of mixtures must have the same cameras."""
        first, each = self.first.traits, [one.traits for one in (self.first, *self.others)]
        form = {**first.form, "component": self.names}
        return replace(first, together=1, needs_torch=any(one.needs_torch for one in each), form=form)

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Masks of the cameras, drawn separately."""
        return (
            *self.first.masks,
            *(mask._replace(field=_MASK_OF + one.component) for one in self.others for mask in one.masks),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Component names of the cameras."""
        return tuple(one.component for one in (self.first, *self.others))

    def plan(self, items: Items) -> list[ClipPlan]:
        """Draw the clips and crops of all cameras and find the byte ranges to read."""
        return [self._plan(item) for item in items]

    def _plan(self, item: Item) -> ClipPlan:
        plan = self.first.plan_of(item, self._numbers)
        at_s = plan.numbers / plan.fps

        def nearest(_: Item, video: VideoIndex) -> Int64s:
            return np.floor(at_s * video.fps + 0.5).astype(np.int64).clip(0, video.n_frames - 1)

        others = (one.plan_of(item, nearest) for one in self.others)
        # count the sample only once
        return replace(plan, others=tuple(replace(other, short=False) for other in others))

    def layout(self, memory: Memory[ClipPlan]) -> VideoBatch:
        """Create the empty batch."""
        others = {
            one.component: replace(
                one.layout(memory.of([plan.others[at] for plan in memory.plans])), key=memory.key, label=memory.label
            )
            for at, one in enumerate(self.others)
        }
        return replace(self.first.layout(memory), camera=self.first.component, others=others)

    def fill(self, rows: BatchRows[ClipPlan], batch: VideoBatch, stats: Stats) -> None:
        """Read, decode and write the clips of all cameras.

        Raises:
            SampleError: A clip is unusable.
        """
        self.first.fill(rows, batch, stats)
        for at, one in enumerate(self.others):
            one.fill(rows.of([plan.others[at] for plan in rows.plans]), batch.others[one.component], stats)

    def cues(
        self, rows: BatchRows[ClipPlan], batch: VideoBatch, n: int, view: int, part: str, needs: frozenset[str]
    ) -> Cues:
        """Return the mask inputs of a view of the camera whose mask is drawn."""
        plan = rows.plans[n]
        its = {one.camera: other for one, other in zip(self.others, plan.others, strict=True)}
        own, clips = its.get(part, plan), batch.others.get(part, batch)
        return self.first.cues_of(own, clips, rows.starts[n] + view, view, needs)

    def join(self, batch: VideoBatch, plans: Iterable[ClipPlan], made: Mapping[str, Any]) -> VideoBatch:
        """Finish the batch with each camera's mask, flow, planes and draws, and with fields."""
        whole, others = list(plans), {}
        for at, one in enumerate(self.others):
            mask, name = made.get(_MASK_OF + one.component), one.component
            others[name] = one.join(batch.others[name], [plan.others[at] for plan in whole], {"mask": mask})
        own = {name: value for name, value in made.items() if not name.startswith(_MASK_OF)}
        return replace(self.first.join(batch, whole, own), others=others)

    def _numbers(self, item: Item, video: VideoIndex) -> Int64s:
        """Draw the frames of the first camera from the instants that all cameras cover."""
        (n_frames,) = find_frames_of_all(item.manifest, self.names, slice(item.index, item.index + 1)).tolist()
        return self.first.numbers(item, video, n_frames)


@dataclass(frozen=True, slots=True)
class EachCamera:
    """Applies a device transform to each camera's clips."""

    of: Finish[VideoBatch, VideoBatch]

    def __call__(self, batch: VideoBatch, device: torch.device) -> VideoBatch:
        """Transform all cameras of the batch."""
        others = {name: self.of(one, device) for name, one in batch.others.items()}
        return replace(self.of(batch, device), others=others)
