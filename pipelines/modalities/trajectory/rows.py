"""Rows of trajectories: clips, the depth of the same frames, and the poses up to the waypoint."""

from dataclasses import dataclass, replace

import numpy as np

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import decode_frames
from maskstream.pipelines.masks import Cues
from maskstream.pipelines.masks.core import read_only
from maskstream.pipelines.modalities.rows import BatchRows, Item, Items, Masked, Memory, RowMaker, SampleRows, Traits
from maskstream.pipelines.modalities.video.clip_plan import AroundClip, ClipPlan
from maskstream.pipelines.modalities.video.rows import ClipRowMaker
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s, Float64s, Int64s, UInt16s
from maskstream.shards.errors import DataError
from maskstream.shards.media.camera_pose import POSE, WAYPOINT, mirrored, seen_from, waypoint
from maskstream.shards.media.depth import read_depth
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.members.arrays import LENS, check_lens, check_path_poses
from maskstream.shards.members.video import find_gop_table_problems
from maskstream.shards.stores.base import Range

from .batch import TrajectoryBatch

VIDEO, DEPTH, CAMERA = "mp4", "depth.mp4", "camera.npy"
"""Components of a trajectory."""
_POSE_BYTES = 8 * POSE
_MM_IN_M = np.float32(1000)


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthPlan:
    """Depth frames that a clip needs, each a GOP: their numbers, int64 (n,), ascending, and their byte ranges."""

    video: VideoIndex
    numbers: Int64s
    frames: tuple[Range, ...]
    header: Range | None
    """Byte range of the header if the manifest does not have it."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges to read."""
        return self.frames if self.header is None else (self.header, *self.frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryPlan(AroundClip):
    """A clip, and the byte ranges of its depth and of the poses from its first frame to its waypoint."""

    clip: ClipPlan
    depth: DepthPlan | None
    camera: Range
    lens: Float64s

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges to read."""
        return (*self.clip.ranges, *(() if self.depth is None else self.depth.ranges), self.camera)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryRowMaker(RowMaker[TrajectoryPlan, TrajectoryBatch]):
    """Creates rows of trajectories. Clips end at least `ahead_s` seconds before the trajectory ends."""

    clips: ClipRowMaker
    depth: bool
    """Whether to read depth."""
    ahead_s: float

    @property
    def traits(self) -> Traits:
        """Needs torch if the clips do."""
        return Traits(needs_torch=self.clips.traits.needs_torch)

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the clip."""
        return self.clips.masks

    def plan(self, items: Items) -> list[TrajectoryPlan]:
        """Draw clips and their crops and find all byte ranges.

        Raises:
            SampleError: The manifest's numbers of the components are inconsistent.
        """
        return [self._plan(item) for item in items]

    def _plan(self, item: Item) -> TrajectoryPlan:
        clip = self.clips.plan_of(item, self._numbers)
        camera, lens = self._place_camera(item, clip)
        return TrajectoryPlan(
            clip=clip, depth=self._depth(item, clip) if self.depth else None, camera=camera, lens=lens
        )

    def layout(self, memory: Memory[TrajectoryPlan]) -> TrajectoryBatch:
        """Create the empty batch."""
        clips = self.clips.layout(memory.of([plan.clip for plan in memory.plans]))
        frames, size = self.clips.clip.frames, self.clips.clip.size
        return TrajectoryBatch(
            video=clips.video,
            depth=memory(np.float32, frames, size, size) if self.depth else None,
            mask=None,
            pts_s=clips.pts_s,
            pose=memory(np.float32, frames, POSE),
            waypoint=memory(np.float32, WAYPOINT),
            lens=memory(np.float32, len(LENS)),
            key=memory.key,
            label=memory.label,
        )

    def fill(self, rows: BatchRows[TrajectoryPlan], batch: TrajectoryBatch, stats: Stats) -> None:
        """Read and decode clips.

        Raises:
            SampleError: Colour, depth or poses of a clip are unusable.
        """
        self.clips.fill(rows.of([plan.clip for plan in rows.plans]), batch.clips, stats)
        for item, plan, own in rows:
            crops = plan.clip.crops
            if plan.depth is not None and batch.depth is not None:
                frames = self._decoded(item, plan.depth, stats)
                places = np.searchsorted(plan.depth.numbers, plan.numbers)
                source = (plan.clip.video.width, plan.clip.video.height)
                with stats.stage("convert"):
                    for crop, out in zip(crops, own.of(batch.depth), strict=True):
                        nearest(frames, crop, source, out, places)
            with item.manifest.reading(item.index, CAMERA):
                (data,) = item.read((plan.camera,), stats)
                path = np.frombuffer(data, "<f8").reshape(-1, POSE)
                if problem := check_path_poses(path):
                    raise DataError(problem)
            for view, crop in enumerate(crops, start=own.start):
                self._place(plan, path, crop, batch, own, view)

    def cues(
        self,
        rows: BatchRows[TrajectoryPlan],
        batch: TrajectoryBatch,
        n: int,
        view: int,
        part: str,
        needs: frozenset[str],
    ) -> Cues:
        """Return the frames and depth of a view."""
        row = rows.starts[n] + view
        seen = self.clips.cues_of(rows.plans[n].clip, batch.clips, row, view, needs)
        if batch.depth is None or "depth" not in needs:
            return seen
        return replace(seen, depth=read_only(batch.depth.numpy()[row]))

    def ahead(self, fps: float) -> int:
        """Return the number of frames from a clip's last frame to its waypoint."""
        return max(round(self.ahead_s * fps), 1)

    def _numbers(self, item: Item, video: VideoIndex) -> Int64s:
        """Draw the frame numbers of a clip."""
        with item.manifest.reading(item.index, self.clips.component):
            left = video.n_frames - self.ahead(video.fps)
            if left < 1:
                raise DataError(
                    f"has {video.n_frames} frames at {video.fps:g} per second, too few for a waypoint "
                    f"{self.ahead_s:g} s ahead; use a smaller ahead_s, or exclude short trajectories"
                )
        starts = video.first_frame[video.first_frame < left]
        return self.clips.clip.numbers(left, item.rng("clip"), starts, fps=video.fps)

    def _place_camera(self, item: Item, clip: ClipPlan) -> tuple[Range, Float64s]:
        """Locate the poses from the clip's first frame to its waypoint, and return them with the lens."""
        manifest, index = item.manifest, item.index
        member = manifest.member(index, CAMERA)
        with manifest.reading(index, CAMERA):
            facts = manifest.components[CAMERA].facts_of(index)
            n_frames, begin = int(facts["n_frames"]), int(facts["data_offset"])
            if n_frames != clip.n_frames or begin < 0 or begin + n_frames * _POSE_BYTES != member.size:
                raise DataError(
                    f"has {n_frames} poses in {member.size} bytes from byte {begin} on, but {clip.n_frames} frames"
                )
            lens = np.array([float(facts[name]) for name in LENS])
            if problem := check_lens(*lens.tolist()):
                raise DataError(problem)
        first, stop = int(clip.numbers[0]), int(clip.numbers[-1]) + self.ahead(clip.video.fps) + 1
        place = member.offset + begin + first * _POSE_BYTES
        return Range(member.name, place, (stop - first) * _POSE_BYTES), lens

    def _depth(self, item: Item, clip: ClipPlan) -> DepthPlan:
        """Locate the depth of the clip's frames."""
        manifest, index = item.manifest, item.index
        shard, base, size = manifest.member(index, DEPTH)
        with manifest.reading(index, DEPTH):
            video = manifest.video(index, DEPTH)
            if problem := next(find_gop_table_problems(video, size), None):
                raise DataError(problem)
            if video.n_frames != clip.n_frames or len(video.first_frame) != video.n_frames or video.foreign:
                raise DataError(
                    f"has {video.n_frames} frames in {len(video.first_frame)} GOPs, but {clip.n_frames} "
                    "colour frames; depth needs one GOP per colour frame"
                )
        numbers = np.unique(clip.numbers)
        spans = zip(video.offset[numbers].tolist(), video.size[numbers].tolist(), strict=True)
        return DepthPlan(
            video=video,
            numbers=numbers,
            frames=tuple(Range(shard, base + offset, length) for offset, length in spans),
            header=Range(shard, base, video.header_size) if video.header is None else None,
        )

    def _decoded(self, item: Item, plan: DepthPlan, stats: Stats) -> list[UInt16s]:
        """Decode the requested depth frames, uint16 (H, W) each, in millimetres."""
        video = plan.video
        with item.manifest.reading(item.index, DEPTH):
            data = item.read(plan.ranges, stats)
            header = video.header if video.header is not None else data.pop(0)
            with stats.stage("decode"):
                # each frame is a GOP, so only the requested ones are present
                places = np.arange(len(data), dtype=np.int64)
                size = (video.width, video.height)
                decoded = decode_frames(header, memoryview(b"".join(data)), 0, places, size=size)
            return [read_depth(frame) for frame in decoded.frames]

    def _place(
        self, plan: TrajectoryPlan, path: Float64s, crop: Crop, batch: TrajectoryBatch, own: SampleRows, view: int
    ) -> None:
        """Write the poses, waypoint and lens of a view."""
        at = plan.numbers - plan.numbers[0]
        now = path[at[-1]]
        poses, way = seen_from(path[at], now), waypoint(path[-1], now)
        own.whole(batch.pose)[view] = mirrored(poses) if crop.flip else poses
        own.whole(batch.waypoint)[view] = way * [-1, 1, -1] if crop.flip else way
        own.whole(batch.lens)[view] = crop_lens(plan.lens, crop, self.clips.clip.size)


def nearest(
    frames: list[UInt16s],
    crop: Crop,
    source: tuple[int, int],
    out: Float32s,
    places: Int64s,
) -> None:
    """Write depth in metres to `out`, float32 (T, size, size), by nearest-neighbour sampling at pixel centres.

    Args:
        frames: uint16 (H, W) each, in millimetres.
        crop: In pixels of colour frames of `source` size.
        source: Width and height of the colour frames, which may differ from the depth's.
        out: Output.
        places: (T,), index in `frames` of each of the clip's frames.
    """
    height, width = frames[0].shape
    middle = (np.arange(out.shape[-1]) + 0.5) / out.shape[-1]
    rows = np.floor((crop.y + middle * crop.height) * height / source[1]).astype(np.int64).clip(0, height - 1)
    columns = np.floor((crop.x + middle * crop.width) * width / source[0]).astype(np.int64).clip(0, width - 1)
    if crop.flip:
        columns = columns[::-1]
    for to, place in zip(out, places.tolist(), strict=True):
        np.divide(frames[place][np.ix_(rows, columns)], _MM_IN_M, out=to)


def crop_lens(lens: Float64s, crop: Crop, size: int) -> Float64s:
    """Convert a lens (fx, fy, cx, cy) from pixels of a frame to pixels of a crop resized to `size` x `size`."""
    across, down = size / crop.width, size / crop.height
    centre = (lens[2] - crop.x) * across
    return np.array(
        [lens[0] * across, lens[1] * down, size - centre if crop.flip else centre, (lens[3] - crop.y) * down]
    )
