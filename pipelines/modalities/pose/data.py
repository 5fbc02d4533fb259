"""Poses: their data config, which makes the rows of batches, and their loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.data import RowConfig, check_no_cues, check_settings
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.rows import Item, Masked, Memory, SampleRows
from maskstream.pipelines.modalities.split import Options, Split
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import DataError
from maskstream.shards.format.component import component_of
from maskstream.shards.media.h36m import JOINTS, MIRRORED, NECK
from maskstream.shards.members.poses import POSES
from maskstream.shards.stores.base import Range

from .batch import PoseBatch
from .clip import Cameras, PoseClip, mirrored

_POSE_BYTES = 4 * 3 * len(JOINTS)
_FARTHEST_M = 1e6
KEPT = {17: np.arange(17), 16: np.delete(np.arange(17), NECK)}
"""The joints of Human3.6M in skeletons of 17 and of 16 joints."""


class PoseError(DataError):
    """A member does not hold the poses that the manifest says."""


class PoseSettings(Options, total=False):
    """The fields of `PoseData`, with its defaults, and the options of all loaders."""

    clip: PoseClip
    joints: int
    cameras: Cameras
    flip: float | None
    mask: Mask | None
    views: int
    component: str | None
    fields: Fields


def pose_loader(location: str | Path, **settings: Unpack[PoseSettings]) -> Loader[PoseBatch]:
    """The loader of masked poses of the split in the folder `location`, such as `data/shards/sample-pose/train`.

    settings: the fields of `PoseData` (clip, cameras, mask, ...) and the options of all loaders (`Options`: batch_size,
    seed, shuffle, workers, ...). A batch has batch_size * views rows.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of poses.
    """
    return PoseData.opened(location, settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class PosePlan:
    """The numbers of a clip's frames, int64 (T,), of `n_frames`."""

    numbers: npt.NDArray[np.int64]
    n_frames: int
    ranges: tuple[Range]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseData(RowConfig[PosePlan, PoseBatch]):
    """The data config of masked poses.

    clip: the frames of a clip. joints: 17, or 16 without the neck, as in part of the literature. cameras: the cameras
    that are drawn. flip: the probability that left and right change places; None is 0.5 when shuffled, else 0. mask: a
    mask of `maskstream.pipelines.masks` on (frame, joint) that needs no cues, or None; it is drawn for 2-D and for 3-D
    poses apart. views: the number of views per sample; they share the frames and differ in camera, flip and masks.
    component: the motion to read; None if a sample has only one. fields: other values of a sample for `batch.fields`
    (see fields.py).
    """

    modality: ClassVar[str] = "pose"
    alike: ClassVar[tuple[str, ...]] = ("clip.frames", "joints")

    clip: PoseClip = field(default_factory=PoseClip)
    joints: int = 17
    cameras: Cameras = field(default_factory=Cameras)
    flip: float | None = None
    mask: Mask | None = None
    views: int = 1
    component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)
        if self.joints not in KEPT:
            raise ValueError(f"joints={self.joints}: a skeleton has {' or '.join(map(str, KEPT))} joints")
        if self.flip is not None and not 0 <= self.flip <= 1:
            raise ValueError(f"flip={self.flip}: it is a probability, 0 to 1, or None")
        check_no_cues(self, "poses")

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "pose", with the axes (frame, joint)."""
        return {"pose": pose_grid(self.clip.frames, self.joints)}

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Those of 2-D and of 3-D poses, which are parts of their own (see `masks.Joint`)."""
        return tuple(Masked(f"mask_{part}", self.mask, self.grids["pose"], part) for part in ("2d", "3d"))

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; raises ValueError if that is impossible."""
        flip = (0.5 if split.shuffle else 0.0) if self.flip is None else self.flip
        component = component_of(split.manifest.components, (POSES.name,), self.component).name
        return replace(self, flip=flip, component=component)

    def plan(self, item: Item) -> PosePlan:
        """Draws the frames of a clip; raises SampleError if the manifest's numbers contradict each other."""
        component = item.manifest.component(self.component or "")
        member = item.manifest.member(item.index, component.name)
        with item.manifest.reading(item.index, component.name):
            facts = component.facts_of(item.index)
            n_frames, begin = int(facts["n_frames"]), int(facts["data_offset"])
            if n_frames < 1 or begin < 0 or begin + n_frames * _POSE_BYTES != member.size:
                raise PoseError(
                    f"has {member.size} bytes, not {begin} bytes of header and {n_frames} poses of {len(JOINTS)} "
                    "joints as the manifest says"
                )
            numbers = self.clip.numbers(n_frames, item.rng("clip"))
        first, stop = int(numbers[0]), int(numbers[-1]) + 1
        place = Range(member.name, member.offset + begin + first * _POSE_BYTES, (stop - first) * _POSE_BYTES)
        return PosePlan(numbers=numbers, n_frames=n_frames, ranges=(place,))

    def layout(self, memory: Memory[PosePlan]) -> PoseBatch:
        """The empty batch."""
        frames, joints = self.clip.frames, self.joints
        return PoseBatch(
            pose_3d=memory(np.float32, frames, joints, 3),
            pose_2d=memory(np.float32, frames, joints, 2),
            root=memory(np.float32, frames, 3),
            focal=memory(np.float32),
            mask_2d=None,
            mask_3d=None,
            key=memory.key,
            label=memory.label,
        )

    def fill(self, item: Item, plan: PosePlan, batch: PoseBatch, own: SampleRows, stats: Stats) -> None:
        """Reads the poses and takes the views' pictures; raises SampleError if a number is not finite."""
        with item.manifest.reading(item.index, self.component or ""):
            (data,) = item.read(plan.ranges, stats)
            poses = np.frombuffer(data, dtype="<f4").reshape(-1, len(JOINTS), 3)
            if not (np.abs(poses) < _FARTHEST_M).all():
                raise PoseError(f"has a number that is not finite, or a joint farther than {_FARTHEST_M:g} m away")
        kept = KEPT[self.joints]
        pose_3d, pose_2d, root = map(own.whole, (batch.pose_3d, batch.pose_2d, batch.root))
        focal = own.whole(batch.focal)
        with stats.stage("convert"):
            clip = poses[plan.numbers - plan.numbers[0]]
            for view, rng in enumerate(item.rngs("camera"), start=own.start):
                seen = self.cameras(clip, rng)
                if rng.random() < (self.flip or 0.0):
                    seen = mirrored(seen, np.array(MIRRORED))
                pose_3d[view], pose_2d[view] = seen.pose_3d[:, kept], seen.pose_2d[:, kept]
                root[view], focal[view] = seen.root, seen.focal


def pose_grid(frames: int, joints: int) -> TokenGrid:
    """The (frame, joint) grid of a clip."""
    return TokenGrid(axes=("frame", "joint"), shape=(frames, joints), patch=(1, 1))
