"""The sampler of walks: clips of a video sampler, the depth of the same frames, and the poses up to the waypoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import DataError
from ....shards.format.manifest import Manifest
from ....shards.media.camera_pose import POSE, WAYPOINT, Floats, mirrored, seen_from, waypoint
from ....shards.media.depth import depth_of
from ....shards.media.video_index import VideoIndex
from ....shards.members.camera_path import LENS, problem_of_lens, problem_of_path
from ....shards.members.video import table_problems
from ....shards.stores.base import Announcement, Range
from ...augment.crop import Crop
from ...decode.cpu import decode_frames
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from ..video.sample import ClipRequest, VideoDraft, VideoSampler
from .batch import TrajectoryBatch

VIDEO, DEPTH, CAMERA = "mp4", "depth.mp4", "camera.npy"
"""The components of a walk."""
_POSE_BYTES = 8 * POSE
_MM_IN_M = np.float32(1000)


@dataclass(frozen=True, kw_only=True)
class WalkVideoSampler(VideoSampler):
    """A `VideoSampler` whose clips end at least `ahead_s` seconds before the walk does."""

    ahead_s: float = 2.0

    def ahead(self, fps: float) -> int:
        """The frames from the last one of a clip to its waypoint."""
        return max(round(self.ahead_s * fps), 1)

    def numbers(self, index: int, video: VideoIndex, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        with self.manifest.reading(index, self.component):
            left = video.n_frames - self.ahead(video.fps)
            if left < 1:
                raise DataError(
                    f"has {video.n_frames} frames, {video.fps:g} a second, so no waypoint is {self.ahead_s:g} s ahead; "
                    "give a smaller ahead_s, or leave short walks out"
                )
        return self.clip.numbers(left, rng, video.first_frame[video.first_frame < left], fps=video.fps)


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthRequest:
    """The frames of depth that a clip needs, each a GOP: their numbers, int64 (n,), ascending, and where they lie.

    header: the range of the header if the manifest does not have it.
    """

    video: VideoIndex
    numbers: npt.NDArray[np.int64]
    frames: tuple[Range, ...]
    header: Range | None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return self.frames if self.header is None else (self.header, *self.frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryRequest:
    """The draws of a sample, and where its depth and the poses from its first frame to its waypoint lie."""

    video: ClipRequest
    depth: DepthRequest | None
    camera: Range
    lens: Floats

    @property
    def key(self) -> str:
        """The key of the sample."""
        return self.video.key

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The frame numbers of the clip."""
        return self.video.numbers

    @property
    def n_frames(self) -> int:
        """The number of frames of the whole walk."""
        return self.video.n_frames

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read."""
        return (*self.video.ranges, *(() if self.depth is None else self.depth.ranges), self.camera)


@dataclass(kw_only=True, slots=True)
class TrajectoryDraft:
    """The memory of a batch of B views: that of the clips, and the rest as in `TrajectoryBatch`."""

    video: VideoDraft
    depth: npt.NDArray[np.float32] | None
    pose: npt.NDArray[np.float32]
    waypoint: npt.NDArray[np.float32]
    lens: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TrajectorySampler:
    """Makes host batches of walks. It holds only settings, so it can be sent to worker processes.

    video: draws clips, crops and masks. depth: whether depth is read.
    """

    video: WalkVideoSampler
    depth: bool = True

    @property
    def manifest(self) -> Manifest:
        """That of the split."""
        return self.video.manifest

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.video.seed

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.video.needs_progress

    def request(self, wanted: Wanted) -> TrajectoryRequest:
        """Draws the clip and its crops, and finds all byte ranges; raises SampleError if the manifest's numbers of the
        components contradict each other.
        """
        video = self.video.request(wanted)
        camera, lens = self._camera(wanted.index, video)
        return TrajectoryRequest(
            video=video, depth=self._depth(wanted.index, video) if self.depth else None, camera=camera, lens=lens
        )

    def announce(self, request: TrajectoryRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[object]) -> TrajectoryDraft:
        """The memory of a batch of some requests."""
        n, frames, size = len(requests) * self.video.views, self.video.clip.frames, self.video.clip.size
        return TrajectoryDraft(
            video=self.video.allocate(requests),
            depth=np.empty((n, frames, size, size), np.float32) if self.depth else None,
            pose=np.empty((n, frames, POSE), np.float32),
            waypoint=np.empty((n, WAYPOINT), np.float32),
            lens=np.empty((n, len(LENS)), np.float32),
        )

    def mask(self, request: TrajectoryRequest, draft: TrajectoryDraft, row: int) -> None:
        """Draws the masks of a row."""
        self.video.mask(request.video, draft.video, row)

    def fill(self, request: TrajectoryRequest, draft: TrajectoryDraft, row: int, stats: Stats) -> None:
        """Reads and decodes a row; raises SampleError if colours, depth or poses are unusable."""
        self.video.fill(request.video, draft.video, row, stats)
        own, crops = self.video.views_of(row), request.video.crops
        if request.depth is not None and draft.depth is not None:
            frames = self._decoded(request.video.index, request.depth, stats)
            places = np.searchsorted(request.depth.numbers, request.numbers)
            source = (request.video.video.width, request.video.video.height)
            with stats.stage("convert"):
                for view, crop in enumerate(crops, start=own.start):
                    nearest(frames, crop, source, draft.depth[view], places)
        with stats.stage("read"):
            path = self._path(request)
        stats.read_bytes += request.camera.size
        for view, crop in enumerate(crops, start=own.start):
            self._place(request, path, crop, draft, view)

    def join(self, draft: TrajectoryDraft) -> TrajectoryBatch:
        """The host batch; the views of a sample are consecutive rows."""
        video = self.video.join(draft.video)
        return TrajectoryBatch(
            video=video.video,
            depth=None if draft.depth is None else torch.from_numpy(draft.depth),
            mask=video.mask,
            pts_s=video.pts_s,
            pose=torch.from_numpy(draft.pose),
            waypoint=torch.from_numpy(draft.waypoint),
            lens=torch.from_numpy(draft.lens),
            label=video.label,
            key=video.key,
        )

    def _camera(self, index: int, clip: ClipRequest) -> tuple[Range, Floats]:
        """Where the poses from the clip's first frame to its waypoint lie, and the lens."""
        member = self.manifest.member(index, CAMERA)
        with self.manifest.reading(index, CAMERA):
            facts = self.manifest.components[CAMERA].facts_of(index)
            n_frames, begin = int(facts["n_frames"]), int(facts["data_offset"])
            if n_frames != clip.n_frames or begin < 0 or begin + n_frames * _POSE_BYTES != member.size:
                raise DataError(
                    f"has {n_frames} poses in {member.size} bytes from byte {begin} on, beside {clip.n_frames} frames"
                )
            lens = np.array([float(facts[name]) for name in LENS])
            if problem := problem_of_lens(*lens.tolist()):
                raise DataError(problem)
        first, stop = int(clip.numbers[0]), int(clip.numbers[-1]) + self.video.ahead(clip.video.fps) + 1
        place = member.offset + begin + first * _POSE_BYTES
        return Range(member.name, place, (stop - first) * _POSE_BYTES), lens

    def _depth(self, index: int, clip: ClipRequest) -> DepthRequest:
        """Where the depth of the clip's frames lies."""
        shard, base, size = self.manifest.member(index, DEPTH)
        with self.manifest.reading(index, DEPTH):
            video = self.manifest.video(index, DEPTH)
            if problem := next(table_problems(video, size), None):
                raise DataError(problem)
            if video.n_frames != clip.n_frames or len(video.first_frame) != video.n_frames or video.foreign:
                raise DataError(
                    f"has {video.n_frames} frames in {len(video.first_frame)} GOPs, beside {clip.n_frames} frames of "
                    "colours; depth has a GOP for each of these"
                )
        numbers = np.unique(clip.numbers)
        spans = zip(video.offset[numbers].tolist(), video.size[numbers].tolist(), strict=True)
        return DepthRequest(
            video=video,
            numbers=numbers,
            frames=tuple(Range(shard, base + offset, length) for offset, length in spans),
            header=Range(shard, base, video.header_size) if video.header is None else None,
        )

    def _decoded(self, index: int, request: DepthRequest, stats: Stats) -> list[npt.NDArray[np.uint16]]:
        """The wanted frames of depth, uint16 (H, W) each, in millimetres."""
        video = request.video
        with self.manifest.reading(index, DEPTH):
            with stats.stage("read"):
                data = list(self.manifest.store.read_many(request.ranges))
            stats.read_bytes += sum(map(len, data))
            header = video.header if video.header is not None else data.pop(0)
            with stats.stage("decode"):
                places = np.arange(len(data), dtype=np.int64)  # each frame is a GOP, so only the wanted ones are there
                size = (video.width, video.height)
                decoded = decode_frames(header, memoryview(b"".join(data)), 0, places, size=size)
            return [depth_of(frame) for frame in decoded.frames]

    def _path(self, request: TrajectoryRequest) -> Floats:
        """The poses from the clip's first frame to its waypoint, float64 (n, 7)."""
        with self.manifest.reading(request.video.index, CAMERA):
            (data,) = self.manifest.store.read_many((request.camera,))
            path = np.frombuffer(data, "<f8").reshape(-1, POSE)
            if problem := problem_of_path(path):
                raise DataError(problem)
        return path

    def _place(self, request: TrajectoryRequest, path: Floats, crop: Crop, draft: TrajectoryDraft, view: int) -> None:
        """Writes the poses, the waypoint and the lens of a view."""
        at = request.numbers - request.numbers[0]
        now = path[at[-1]]
        poses, way = seen_from(path[at], now), waypoint(path[-1], now)
        draft.pose[view] = mirrored(poses) if crop.flip else poses
        draft.waypoint[view] = way * [-1, 1, -1] if crop.flip else way
        draft.lens[view] = lens_of(request.lens, crop, self.video.clip.size)


def nearest(
    frames: list[npt.NDArray[np.uint16]],
    crop: Crop,
    source: tuple[int, int],
    out: npt.NDArray[np.float32],
    places: npt.NDArray[np.int64],
) -> None:
    """Writes depth in metres to `out`, float32 (T, size, size): of each pixel's middle the nearest value.

    frames: uint16 (H, W) each, of which `places` (T,) are the clip's. crop: in pixels of colours of `source` = (width,
    height), which may be another size than that of the depth.
    """
    height, width = frames[0].shape
    middle = (np.arange(out.shape[-1]) + 0.5) / out.shape[-1]
    rows = np.floor((crop.y + middle * crop.height) * height / source[1]).astype(np.int64).clip(0, height - 1)
    columns = np.floor((crop.x + middle * crop.width) * width / source[0]).astype(np.int64).clip(0, width - 1)
    if crop.flip:
        columns = columns[::-1]
    for to, place in zip(out, places.tolist(), strict=True):
        np.divide(frames[place][np.ix_(rows, columns)], _MM_IN_M, out=to)


def lens_of(lens: Floats, crop: Crop, size: int) -> Floats:
    """A lens (fx, fy, cx, cy) in pixels of a frame, in those of a crop that is resized to `size` x `size`."""
    across, down = size / crop.width, size / crop.height
    centre = (lens[2] - crop.x) * across
    return np.array(
        [lens[0] * across, lens[1] * down, size - centre if crop.flip else centre, (lens[3] - crop.y) * down]
    )
