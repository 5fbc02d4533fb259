"""The pose sampler: it draws clips of motions and reads their poses, draws cameras and takes pictures, draws masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import DataError
from ....shards.format.manifest import Manifest
from ....shards.media.h36m import JOINTS, MIRRORED, NECK
from ....shards.stores.base import Announcement, Range
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .batch import PoseBatch
from .camera import Cameras, mirrored
from .clip import PoseClip

_POSE_BYTES = 4 * 3 * len(JOINTS)
_FARTHEST_M = 1e6
KEPT = {17: np.arange(17), 16: np.delete(np.arange(17), NECK)}
"""The joints of Human3.6M in skeletons of 17 and of 16 joints."""


class PoseError(DataError):
    """A member does not hold the poses that the manifest says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseRequest:
    """The draws of a sample that precede reading: the numbers of its frames, int64 (T,), of `n_frames`."""

    wanted: Wanted
    key: str
    numbers: npt.NDArray[np.int64]
    n_frames: int
    ranges: tuple[Range]


@dataclass(kw_only=True, slots=True)
class PoseDraft:
    """The memory of a batch of B views. With k views per sample, row r is the views [r k, (r + 1) k).

    pose_3d, pose_2d, root, focal: as in `PoseBatch`. label: int64 (B,). key and maps: one per view; maps are of mask_2d
    and of mask_3d, None until they are drawn.
    """

    pose_3d: npt.NDArray[np.float32]
    pose_2d: npt.NDArray[np.float32]
    root: npt.NDArray[np.float32]
    focal: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    key: list[str]
    maps_2d: list[Maps | None]
    maps_3d: list[Maps | None]


@dataclass(frozen=True, kw_only=True)
class PoseSampler:
    """Makes host batches of poses. It holds only settings, so it can be sent to worker processes.

    Every random draw is a function of (seed, epoch, key, view). The views of a sample share its frames; each view has
    its own camera, flip and masks.
    """

    manifest: Manifest
    clip: PoseClip
    joints: int
    cameras: Cameras
    flip: float
    grid: TokenGrid
    pattern: Mask | None
    seed: int
    views: int = 1
    component: str = "poses.npy"

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.pattern is not None and self.pattern.needs_progress

    def request(self, wanted: Wanted) -> PoseRequest:
        """Draws the frames of a clip; raises SampleError if the manifest's numbers contradict each other."""
        index = wanted.index
        key = self.manifest.key(index)
        member = self.manifest.member(index, self.component)
        with self.manifest.reading(index, self.component):
            facts = self.manifest.components[self.component].facts_of(index)
            n_frames, begin = int(facts["n_frames"]), int(facts["data_offset"])
            if n_frames < 1 or begin < 0 or begin + n_frames * _POSE_BYTES != member.size:
                raise PoseError(
                    f"has {member.size} bytes, not {begin} bytes of header and {n_frames} poses of {len(JOINTS)} "
                    "joints as the manifest says"
                )
            numbers = self.clip.numbers(n_frames, sample_rng(self.seed, wanted.epoch, key, 0, "clip"))
            first, stop = int(numbers[0]), int(numbers[-1]) + 1
            place = Range(member.name, member.offset + begin + first * _POSE_BYTES, (stop - first) * _POSE_BYTES)
        return PoseRequest(wanted=wanted, key=key, numbers=numbers, n_frames=n_frames, ranges=(place,))

    def announce(self, request: PoseRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, rows: int) -> PoseDraft:
        """The memory of a batch of `rows` clips."""
        n, frames = rows * self.views, self.clip.frames
        return PoseDraft(
            pose_3d=np.empty((n, frames, self.joints, 3), dtype=np.float32),
            pose_2d=np.empty((n, frames, self.joints, 2), dtype=np.float32),
            root=np.empty((n, frames, 3), dtype=np.float32),
            focal=np.empty(n, dtype=np.float32),
            label=np.empty(n, dtype=np.int64),
            key=[""] * n,
            maps_2d=[None] * n,
            maps_3d=[None] * n,
        )

    def mask(self, request: PoseRequest, draft: PoseDraft, row: int) -> None:
        """Draws the masks of a row; those of 2-D and 3-D poses are parts of their own (see `masks.Joint`)."""
        if self.pattern is None:
            return
        wanted = request.wanted
        for view in range(self.views):
            for part, maps in (("2d", draft.maps_2d), ("3d", draft.maps_3d)):
                draw = Draw.of(self.seed, wanted.epoch, request.key, view, wanted.place, Cues(), part)
                maps[row * self.views + view] = self.pattern.maps(self.grid, draw)

    def fill(self, request: PoseRequest, draft: PoseDraft, row: int, stats: Stats) -> None:
        """Reads a row's poses and takes its views' pictures; raises SampleError if a number is not finite."""
        wanted, key = request.wanted, request.key
        with self.manifest.reading(wanted.index, self.component), stats.stage("read"):
            (data,) = self.manifest.store.read_many(request.ranges)
            poses = np.frombuffer(data, dtype="<f4").reshape(-1, len(JOINTS), 3)
            if not (np.abs(poses) < _FARTHEST_M).all():
                raise PoseError(f"has a number that is not finite, or a joint farther than {_FARTHEST_M:g} m away")
        stats.read_bytes += request.ranges[0].size
        own = slice(row * self.views, (row + 1) * self.views)
        with stats.stage("convert"):
            clip = poses[request.numbers - request.numbers[0]]
            for view in range(self.views):
                self._view(clip, draft, own.start + view, sample_rng(self.seed, wanted.epoch, key, view, "camera"))
        draft.label[own] = self.manifest.label[wanted.index]
        draft.key[own] = [key] * self.views

    def join(self, draft: PoseDraft) -> PoseBatch:
        """The host batch; the views of a sample are consecutive rows."""
        mask_2d, mask_3d = (
            None if self.pattern is None else self.pattern.batched(self.grid, [own for own in maps if own is not None])
            for maps in (draft.maps_2d, draft.maps_3d)
        )
        return PoseBatch(
            pose_3d=torch.from_numpy(draft.pose_3d),
            pose_2d=torch.from_numpy(draft.pose_2d),
            root=torch.from_numpy(draft.root),
            focal=torch.from_numpy(draft.focal),
            mask_2d=mask_2d,
            mask_3d=mask_3d,
            label=torch.from_numpy(draft.label),
            key=draft.key,
        )

    def _view(self, clip: npt.NDArray[np.float32], draft: PoseDraft, at: int, rng: np.random.Generator) -> None:
        """Writes a view of the clip (T, 17, 3) to row `at` of the draft."""
        made = self.cameras(clip, rng)
        if rng.random() < self.flip:
            made = mirrored(made, np.array(MIRRORED))
        kept = KEPT[self.joints]
        draft.pose_3d[at], draft.pose_2d[at] = made.pose_3d[:, kept], made.pose_2d[:, kept]
        draft.root[at], draft.focal[at] = made.root, made.focal
