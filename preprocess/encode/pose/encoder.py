"""The encoder of poses: the member `poses.npy`, Human3.6M's 17 joints in metres at a fixed rate.

A sequence is resampled to a fixed rate so that its bones keep their lengths between two frames. Linear interpolation of
positions would shorten a rotating limb, by a half between key poses that are far apart. So the pelvis moves along a
line, each bone rotates from one direction to the next, and its length changes linearly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.source import ROUNDING_S, RejectError, Source, Span
from maskstream.shards.arrays import Float64s
from maskstream.shards.config import Config
from maskstream.shards.limits import PositiveFloat
from maskstream.shards.media.h36m import PARENTS
from maskstream.shards.members.arrays import make_poses_member

from .motion_files import Motion, convert_to_h36m, read_bvh, read_npz

_STILL = 1e-9
_OPPOSITE = 1e-3
"""If the mean of two directions is shorter than this, the bone moves along a straight line."""


def resampled(motion: Motion, rate_hz: float) -> Motion:
    """Resample a pose sequence of Human3.6M's joints to 0, 1 / rate_hz, ... seconds from its start. Raise RejectError
    if it is too short for two poses.
    """
    times = motion.times_s - motion.times_s[0]
    at = np.arange(int(np.floor(times[-1] * rate_hz + 1e-6)) + 1) / rate_hz
    after = np.clip(np.searchsorted(times, at, side="right"), 1, len(times) - 1)
    share = ((at - times[after - 1]) / (times[after] - times[after - 1])).clip(0, 1)[:, None, None]
    bones = motion.places - motion.places[:, PARENTS]
    bones[:, 0] = motion.places[:, 0]
    first, second = bones[after - 1], bones[after]
    made = _place_between(first, second, share)
    made[:, 0] = ((1 - share) * first + share * second)[:, 0]
    for joint, parent in list(enumerate(PARENTS))[1:]:
        made[:, joint] += made[:, parent]
    return Motion(places=made, names=motion.names, times_s=at)


def cut(motion: Motion, span: Span) -> Motion:
    """Return the poses of a sequence from 0 s on that begin in a part of it. Raise RejectError if there are fewer than
    two.
    """
    times = motion.times_s
    span.check_end(float(times[-1] + times[1]))
    stop_s = np.inf if span.stop_s is None else span.stop_s
    inside = (times >= span.start_s - float(ROUNDING_S)) & (times < stop_s - float(ROUNDING_S))
    return Motion(places=motion.places[inside], names=motion.names, times_s=times[inside])


def _place_between(first: Float64s, second: Float64s, share: Float64s) -> Float64s:
    """Interpolate bones (T, J, 3): their directions and lengths separately."""
    lengths = [np.linalg.norm(one, axis=-1, keepdims=True) for one in (first, second)]
    units = [one / np.maximum(length, _STILL) for one, length in zip((first, second), lengths, strict=True)]
    direction = (1 - share) * units[0] + share * units[1]
    size = np.linalg.norm(direction, axis=-1, keepdims=True)
    length = (1 - share) * lengths[0] + share * lengths[1]
    straight = (1 - share) * first + share * second
    return np.where(size > _OPPOSITE, direction / np.maximum(size, _STILL) * length, straight)


FORMAT = "format"
"""The entry of a source's meta that names its format, where the file's suffix does not."""
POSE_SUFFIXES = frozenset({".bvh", ".npz"})
LEG_M = (0.3, 2.5)
"""Allowed lengths of a leg from hip to ankle in metres."""
FARTHEST_M = 1e5
_MOST_FRAMES = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseEncoder(Config):
    """Encodes pose sequences.

    Attributes:
        rate_hz: Frames per second; Human3.6M has 50.
        bvh_unit_m: Unit of BVH files in metres, which they do not define.
        bvh_up: Axis of BVH files that points upwards, which they do not define.
    """

    modality: ClassVar[str] = "pose"

    rate_hz: PositiveFloat = 50.0
    bvh_unit_m: PositiveFloat = 0.01
    bvh_up: Literal["y", "z"] = "y"

    @property
    def profile(self) -> str:
        """The only profile: pose."""
        return "pose"

    def encode(self, source: Source) -> Encoded:
        """Encode a pose sequence.

        Args:
            source: Source to encode. meta["format"] is its format (bvh, npz), by default the suffix; `made_by` creates
                a `Motion` from another format.

        Raises:
            RejectError: The sequence cannot be used.
        """
        found, rig = self._read(source)
        made = self._resample_motion(found, source.span)
        whole = found if source.span is None else made
        return Encoded(
            members={"poses.npy": make_poses_member(made.places, self.rate_hz)},
            meta={
                "n_frames": len(made.places),
                "seconds": round(float(whole.times_s[-1] - whole.times_s[0]), 6),
                "rig": rig,
                "n_poses": len(found.places),
            },
        )

    def motion(self, source: Source) -> Motion:
        """Return the sequence of Human3.6M's joints at the encoder's rate. Raise RejectError as `encode` does."""
        return self._resample_motion(self._read(source)[0], source.span)

    def _resample_motion(self, found: Motion, span: Span | None) -> Motion:
        """Return the sequence at the encoder's rate, or the part whose frames begin in `span`."""
        seconds = float(found.times_s[-1] - found.times_s[0])
        if seconds * self.rate_hz > _MOST_FRAMES:
            raise RejectError("check", f"lasts {seconds:g} s, which exceeds {_MOST_FRAMES:,} frames")
        made = resampled(found, self.rate_hz)
        check_size(made.places)
        return made if span is None else cut(made, span)

    def _read(self, source: Source) -> tuple[Motion, str]:
        """Return the joints of Human3.6M in a file, and the name of its rig."""
        readers: Mapping[str, Callable[[Path], Motion]] = {"bvh": self._parse_bvh, "npz": read_npz}
        form = str(source.meta.get(FORMAT, source.path.suffix.lower().removeprefix(".")))
        if source.made_by is None and form not in readers:
            raise RejectError(
                "open", f"{source.path.name} is not a pose sequence; expected one of {', '.join(readers)}"
            )
        try:
            found = made_of(source, Motion)
            return convert_to_h36m(readers[form](source.path) if found is None else found)
        except OSError as error:
            raise RejectError("open", f"cannot be read: {error.strerror}") from error

    def _parse_bvh(self, path: Path) -> Motion:
        return read_bvh(path).motion(self.bvh_unit_m, self.bvh_up)


def check_size(poses: Float64s) -> None:
    """Raise RejectError unless the legs of poses (T, 17, 3) have a human length; a wrong unit is the usual cause."""
    if (far := float(np.abs(poses).max())) > FARTHEST_M:
        raise RejectError("check", f"a joint is {far:.3g} m from the origin; at most {FARTHEST_M:g} m is allowed")
    bones = np.linalg.norm(poses - poses[:, PARENTS], axis=-1)
    leg = float(bones[:, [2, 3, 5, 6]].sum(axis=1).mean() / 2)
    if not LEG_M[0] <= leg <= LEG_M[1]:
        raise RejectError(
            "check",
            f"the legs are {leg:.3g} m long, expected {LEG_M[0]} to {LEG_M[1]} m: the file probably uses another unit "
            "(for BVH, set it with --set bvh_unit_m=0.0254)",
        )
