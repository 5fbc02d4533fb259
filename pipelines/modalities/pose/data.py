"""Data config of poses, which creates the rows of batches, and their loader."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import hypot
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np

from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.pipelines.modalities.data import RowConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.phases import OverRun
from maskstream.pipelines.modalities.rows import BatchRows, Item, Items, Masked, Memory, Traits, is_of_package
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s, Float64s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import DataError
from maskstream.shards.format.component import Component, component_of
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import ASCENDING, Bounds, NaturalFloat, PositiveInt, PositiveInterval, Proportion
from maskstream.shards.media.h36m import JOINTS, MIRRORED, NECK
from maskstream.shards.members.arrays import POSES
from maskstream.shards.stores.base import Range

from .batch import PoseBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseClip(Config):
    """A clip of poses around a middle frame.

    A clip that extends beyond its sequence repeats the first or last pose, as in MPM (Zhang et al., 2023): 243 frames
    with stride 2, from sequences at 50 Hz.

    Attributes:
        frames: Number of poses.
        stride: Distance between poses, in stored frames.
        middle: "random" draws the middle frame uniformly from all frames; "center" uses the middle of the sequence.
    """

    frames: PositiveInt = 243
    stride: PositiveInt = 2
    middle: Literal["random", "center"] = "random"

    def numbers(self, n_frames: int, rng: np.random.Generator) -> Int64s:
        """Draw the clip's frame numbers, int64 (frames,), non-decreasing, in a sequence of `n_frames` frames."""
        middle = int(rng.integers(n_frames)) if self.middle == "random" else n_frames // 2
        offsets = (np.arange(self.frames, dtype=np.int64) - self.frames // 2) * self.stride
        return np.clip(middle + offsets, 0, n_frames - 1)


Elevation = Annotated[float, Bounds(above=-90, below=90)]


class Seen(NamedTuple):
    """A clip seen by a camera: pose_3d (T, J, 3), pose_2d (T, J, 2), root (T, 3) and focal, as in `PoseBatch`."""

    pose_3d: Float32s
    pose_2d: Float32s
    root: Float32s
    focal: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cameras(Config):
    """Random cameras around a clip; each parameter is drawn uniformly from an interval.

    MPM (Zhang et al., 2023) pre-trains on sequences without cameras by drawing them, as PoseAug (Gong et al., 2021)
    does. The defaults approximate Human3.6M's four cameras: focal length 1.145 image widths, at a distance of 4 to 6 m.
    The principal point is the image centre, and there is no lens distortion.

    Attributes:
        distance_m: Distance in metres from the centre of the pelvis' path, in front of the farthest joint on it.
        elevation_deg: Elevation above the horizon in degrees; the direction around the clip is arbitrary.
        focal: Focal length in half image widths.
        aim_m: Maximum offset of the camera's aim from the centre along each axis, in metres.
    """

    distance_m: PositiveInterval = (4.0, 6.0)
    elevation_deg: Annotated[tuple[Elevation, Elevation], ASCENDING] = (-5.0, 25.0)
    focal: PositiveInterval = (2.29, 2.29)
    aim_m: NaturalFloat = 0.3

    def validate(self) -> None:
        if self.aim_m >= self.distance_m[0]:
            raise ValueError(f"aim_m={self.aim_m} must be below every distance, got distance_m={self.distance_m}")

    def __call__(self, poses: Float32s, rng: np.random.Generator) -> Seen:
        """Draw a camera and project poses (T, J, 3) in metres, z upwards."""
        # numpy processes three numbers per point slowly; with all points of one axis at once it takes a tenth of the
        # time.
        frames, joints, _ = poses.shape
        places = poses.astype(np.float64)
        flat = places.reshape(frames, -1)
        middle = places[:, 0].mean(axis=0)
        squares = np.square(flat - np.tile(middle, joints)).reshape(places.shape)
        reach = float((squares[..., 0] + squares[..., 1] + squares[..., 2]).max()) ** 0.5
        turn = rng.uniform(0, 2 * np.pi)
        rise = np.radians(rng.uniform(*self.elevation_deg))
        outwards = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
        at = middle + outwards * (reach + rng.uniform(*self.distance_m))
        axes = _build_view_axes(middle + rng.uniform(-self.aim_m, self.aim_m, 3) - at)
        focal = float(rng.uniform(*self.focal))
        return seen((flat - np.tile(at, joints)).reshape(places.shape) @ axes.T, focal)


def _build_view_axes(direction: Float64s) -> Float64s:
    """Return the axes (3, 3) of an upright camera that looks in a direction, not up or down: right,
    down and forwards.
    """
    x, y, z = direction.tolist()
    flat, length = hypot(x, y), hypot(x, y, z)
    right, forwards = (y / flat, -x / flat, 0.0), (x / length, y / length, z / length)
    down = (x * z / (flat * length), y * z / (flat * length), -flat / length)
    return np.array([right, down, forwards])


def seen(places: Float64s, focal: float) -> Seen:
    """Project joints (T, J, 3) in camera coordinates, all in front of the camera."""
    root = places[:, 0]
    pose_3d = np.empty(places.shape, np.float32)
    pose_2d = np.empty((*places.shape[:-1], 2), np.float32)
    for axis in range(3):
        np.subtract(places[..., axis], root[:, axis, None], out=pose_3d[..., axis], casting="same_kind")
    for axis in range(2):
        np.divide(focal * places[..., axis], places[..., 2], out=pose_2d[..., axis], casting="same_kind")
    return Seen(pose_3d=pose_3d, pose_2d=pose_2d, root=root.astype(np.float32), focal=focal)


def mirrored(clip: Seen, mirror: Int64s) -> Seen:
    """Swap left and right; `mirror` is the joint that each one becomes, (J,)."""
    pose_3d, pose_2d = (np.take(pose, mirror, axis=1) for pose in (clip.pose_3d, clip.pose_2d))
    root = clip.root.copy()
    for pose in (pose_3d, pose_2d, root):
        np.negative(pose[..., 0], out=pose[..., 0])
    return Seen(pose_3d=pose_3d, pose_2d=pose_2d, root=root, focal=clip.focal)


_POSE_BYTES = 4 * 3 * len(JOINTS)
_FARTHEST_M = 1e6
KEPT = {17: np.arange(17), 16: np.delete(np.arange(17), NECK)}
"""Joints of Human3.6M in skeletons of 17 and of 16 joints."""


class PoseError(DataError):
    """A member does not contain the poses described in the manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseSettings:
    """Settings of masked poses.

    Attributes:
        clip: Frames of the clip.
        joints: Number of joints: 17, or 16 without the neck, as in part of the literature.
        cameras: Ranges from which a camera is drawn.
        flip: Probability that left and right are swapped; by default 0.5 when shuffled, else 0.
        mask: Mask of `maskstream.pipelines.masks` on (frame, joint) that needs no input, drawn for 2-D and 3-D
            poses independently; by default none.
        views: Number of views per sample. They share the frames and differ in camera, flip and masks.
        component: Name of the motion to read; required only if a sample has several.
        fields: Other values of a sample that stand in `batch.fields` (see `maskstream.pipelines.modalities.fields`).
        over_run: Settings that change over the run, each with a schedule, such as {"clip.frames": ...} (see
            `pipelines/modalities/phases.py`).
    """

    clip: PoseClip = field(default_factory=PoseClip)
    joints: int = 17
    cameras: Cameras = field(default_factory=Cameras)
    flip: Proportion | None = None
    mask: Mask | None = None
    views: PositiveInt = 1
    component: str | None = None
    fields: Fields = ()
    over_run: OverRun = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PoseOptions(Options, PoseSettings):
    """The options of `pose_loader`."""


@takes_fields(PoseOptions)
def pose_loader(location: Splits, options: PoseOptions) -> Loader[PoseBatch]:
    """Open the loader of masked poses: batch_size * views rows per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/sample-pose/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `PoseData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of poses.
    """
    return PoseData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class PosePlan:
    """Frame numbers of a clip, int64 (T,), of `n_frames` at `fps` frames per second."""

    numbers: Int64s
    n_frames: int
    fps: float
    ranges: tuple[Range]


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseData(PoseSettings, RowConfig[PosePlan, PoseBatch]):
    """Data config of masked poses."""

    modality: ClassVar[str] = "pose"
    alike: ClassVar[tuple[str, ...]] = ("clip.frames", "joints")
    changing: ClassVar[tuple[str, ...]] = ("clip.frames", "clip.stride")

    def validate(self) -> None:
        if self.joints not in KEPT:
            raise ValueError(f"joints must be {' or '.join(map(str, KEPT))}, got {self.joints}")
        check_cues(self.mask, "poses")
        _ = self.grids, self.phases

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grid of "pose", with the axes (frame, joint)."""
        return {"pose": compute_pose_grid(self.clip.frames, self.joints)}

    @property
    def traits(self) -> Traits:
        """Many samples at once; users' classes may import torch."""
        return Traits(together=8, needs_torch=not is_of_package(self))

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Masks of the 2-D and 3-D poses, drawn as separate parts (see `masks.Joint`)."""
        return tuple(Masked(f"mask_{part}", self.mask, self.grids["pose"], part) for part in ("2d", "3d"))

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: A setting does not fit the split.
        """
        flip = (0.5 if split.shuffle else 0.0) if self.flip is None else self.flip
        component = component_of(split.manifest.components, (POSES.name,), self.component).name
        return replace(self, flip=flip, component=component)

    def fps(self, manifest: Manifest) -> Float64s:
        """Return the frames per second of each sequence, float64 (N,), 0 without one."""
        return manifest.component(self.component or "").facts["rate_hz"].astype(np.float64)

    def plan(self, items: Items) -> list[PosePlan]:
        """Draw the frames of clips.

        Raises:
            SampleError: A sample's numbers in the manifest are inconsistent.
        """
        component = items.manifest.component(self.component or "")
        return [self._plan(item, component, rng) for item, rng in zip(items, items.rngs("clip", views=1), strict=True)]

    def _plan(self, item: Item, component: Component, rng: np.random.Generator) -> PosePlan:
        member = item.manifest.member(item.index, component.name)
        with item.manifest.reading(item.index, component.name):
            facts = component.facts_of(item.index)
            n_frames, begin = int(facts["n_frames"]), int(facts["data_offset"])
            if n_frames < 1 or begin < 0 or begin + n_frames * _POSE_BYTES != member.size:
                raise PoseError(
                    f"has {member.size} bytes, not {begin} bytes of header and {n_frames} poses of {len(JOINTS)} "
                    "joints as the manifest says"
                )
            numbers = self.clip.numbers(n_frames, rng)
        first, stop = int(numbers[0]), int(numbers[-1]) + 1
        place = Range(member.name, member.offset + begin + first * _POSE_BYTES, (stop - first) * _POSE_BYTES)
        return PosePlan(numbers=numbers, n_frames=n_frames, fps=float(facts["rate_hz"]), ranges=(place,))

    def layout(self, memory: Memory[PosePlan]) -> PoseBatch:
        """Create the empty batch."""
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

    def fill(self, rows: BatchRows[PosePlan], batch: PoseBatch, stats: Stats) -> None:
        """Read the poses and project the views.

        Raises:
            SampleError: A number is not finite.
        """
        rngs, kept = rows.items.rngs("camera"), KEPT[self.joints]
        pose_3d, pose_2d, root, focal = map(rows.whole, (batch.pose_3d, batch.pose_2d, batch.root, batch.focal))
        read = rows.read(self.component or "", stats)
        with stats.stage("convert"):
            for (item, plan, own), (data,) in zip(rows, read, strict=True):
                with item.manifest.reading(item.index, self.component or ""):
                    poses = np.frombuffer(data, dtype="<f4").reshape(-1, len(JOINTS), 3)
                    # Both are false for NaN.
                    if not (poses.min() > -_FARTHEST_M and poses.max() < _FARTHEST_M):
                        raise PoseError(
                            f"has a number that is not finite, or a joint farther than {_FARTHEST_M:g} m away"
                        )
                clip = poses[plan.numbers - plan.numbers[0]]
                for view in range(own.start, own.stop):
                    rng = next(rngs)
                    seen = self.cameras(clip, rng)
                    if rng.random() < (self.flip or 0.0):
                        seen = mirrored(seen, np.array(MIRRORED))
                    for out, pose in ((pose_3d, seen.pose_3d), (pose_2d, seen.pose_2d)):
                        out[view] = pose if len(kept) == len(JOINTS) else np.take(pose, kept, axis=1)
                    root[view], focal[view] = seen.root, seen.focal


def compute_pose_grid(frames: int, joints: int) -> TokenGrid:
    """Return the (frame, joint) grid of a clip."""
    return TokenGrid(axes=("frame", "joint"), shape=(frames, joints), patch=(1, 1))
