"""Read pose sequences from BVH captures and from your own NPZ files.

NPZ: `positions`, real numbers (T, 17, 3), Human3.6M's joints in metres, right-handed, z upwards. Or (T, J, 3), with
`joints`, whole numbers (17,), the number among the J joints of each of Human3.6M's joints. `rate_hz`: one number,
frames per second. Pickles are never read, so files that contain dictionaries (such as data_3d_h36m.npz of VideoPose3D)
must be converted.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.errors import DataError
from maskstream.shards.media.h36m import JOINTS
from maskstream.shards.media.npy import read_npy


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """Joints over time.

    Attributes:
        places: Positions in metres, x and y along the ground and z upwards, right-handed, float64 (T, J, 3).
        names: Names of the J joints.
        times_s: Times in seconds, ascending, float64 (T,).

    Raises:
        RejectError: There are fewer than two frames, a number is not finite, or times do not ascend.
    """

    places: Float64s
    names: tuple[str, ...]
    times_s: Float64s

    def __post_init__(self) -> None:
        frames = len(self.places)
        if self.places.shape != (frames, len(self.names), 3) or self.times_s.shape != (frames,):
            raise RejectError(
                "decode",
                f"has positions {self.places.shape} of {len(self.names)} joints at {self.times_s.shape} times; "
                "expected (frames, joints, 3)",
            )
        if frames < 2:
            raise RejectError("check", f"has {frames} pose{'s'[: frames != 1]}; a sequence needs at least two")
        if bad := int((~np.isfinite(self.places).all(axis=(1, 2))).sum()):
            raise RejectError("check", f"{bad} of {frames} poses contain numbers that are not finite")
        if not (np.isfinite(self.times_s).all() and (np.diff(self.times_s) > 0).all()):
            raise RejectError("check", "the frame times must be finite and strictly increasing")


def upright(places: Float64s) -> Float64s:
    """Rotate positions (..., 3) of files whose y points upwards, so that z does."""
    return np.stack([places[..., 0], -places[..., 2], places[..., 1]], axis=-1)


Rig = tuple[str | tuple[str, str], ...]
"""The file's joint, or two of them, for each joint in the order of `h36m.JOINTS`."""

RIGS: Mapping[str, Rig] = {
    "Human3.6M": JOINTS,
    "Lugaru": (
        *("groin", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle"),
        *("abdomen", ("left shoulder", "right shoulder"), "neck", "head"),
        *("left shoulder", "left elbow", "left wrist", "right shoulder", "right elbow", "right wrist"),
    ),
    "DeepMimic": (
        *("root", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("chest", "neck", ("neck", "head"), "head"),
        *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
    ),
    "BVH with hips, knees and ankles": (
        *("Hips", "RightHip", "RightKnee", "RightAnkle", "LeftHip", "LeftKnee", "LeftAnkle"),
        *("Chest", ("LeftShoulder", "RightShoulder"), "Neck", "HeadEnd"),
        *("LeftShoulder", "LeftElbow", "LeftWrist", "RightShoulder", "RightElbow", "RightWrist"),
    ),
    "BVH with legs, feet and arms": (
        *("Hips", "RightUpLeg", "RightLeg", "RightFoot", "LeftUpLeg", "LeftLeg", "LeftFoot"),
        *("Spine", ("LeftArm", "RightArm"), "Neck", "Head"),
        *("LeftArm", "LeftForeArm", "LeftHand", "RightArm", "RightForeArm", "RightHand"),
    ),
}


def convert_to_h36m(motion: Motion) -> tuple[Motion, str]:
    """Return the sequence of Human3.6M's joints, and the name of the file's rig.

    A prefix of names that ends in a colon (mixamorig:Hips) is ignored.

    Args:
        motion: Pose sequence with the joints of the file.

    Raises:
        RejectError: The rig is unknown; the message names the joints that the closest known rig lacks.
    """
    number = {name.rpartition(":")[2]: i for i, name in reversed(list(enumerate(motion.names)))}
    lacking = {name: sorted({one for one in _needed(rig) if one not in number}) for name, rig in RIGS.items()}
    likeliest = min(lacking, key=lambda name: len(lacking[name]))
    if lacking[likeliest]:
        raise RejectError(
            "decode",
            f"its {len(motion.names)} joints do not match a known rig ({', '.join(RIGS)}); {likeliest} also needs "
            f"{', '.join(lacking[likeliest])}",
        )
    joints = [motion.places[:, [number[one] for one in _join_both(joint)]].mean(axis=1) for joint in RIGS[likeliest]]
    return Motion(places=np.stack(joints, axis=1), names=JOINTS, times_s=motion.times_s), likeliest


def _join_both(joint: str | tuple[str, str]) -> tuple[str, ...]:
    return (joint,) if isinstance(joint, str) else joint


def _needed(rig: Rig) -> set[str]:
    return {one for joint in rig for one in _join_both(joint)}


_CHANNELS = frozenset(f"{axis}{what}" for axis in "XYZ" for what in ("position", "rotation"))


@dataclass(kw_only=True, slots=True)
class _Joint:
    name: str
    parent: int
    offset: Float64s = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """A motion capture in the file's units and axes.

    Attributes:
        places: float64 (T, J, 3).
        parents: int64 (J,), -1 for none.
        names: Names of the joints; the ends of limbs ("End Site") are joints too, named after their parent (HeadEnd).
        frame_s: Seconds from one frame to the next.
    """

    places: Float64s
    parents: Int64s
    names: tuple[str, ...]
    frame_s: float

    def motion(self, unit_m: float, up: Literal["y", "z"]) -> Motion:
        """Convert the capture to metres, with z upwards.

        Args:
            unit_m: Unit of the file in metres.
            up: Axis of the file that points upwards.
        """
        places = self.places * unit_m
        times: Float64s = np.arange(len(places), dtype=np.float64) * self.frame_s
        return Motion(places=upright(places) if up == "y" else places, names=self.names, times_s=times)


def read_bvh(path: Path) -> Capture:
    """Read the joints of a capture. Raise RejectError if the file is not a BVH or is truncated."""
    check_source_file(path)
    hierarchy, mark, motion = path.read_bytes().decode("utf-8", "replace").partition("MOTION")
    lines = motion.strip().split("\n", 2)
    if not mark or len(lines) < 3:
        raise RejectError("decode", "is not a BVH file with a HIERARCHY and a MOTION section")
    try:
        joints = _list_joints(hierarchy)
        frames, frame_s = int(lines[0].split()[-1]), float(lines[1].split()[-1])
        values = np.array(lines[2].split(), dtype=np.float64)
    except (ValueError, IndexError) as error:
        raise RejectError("decode", f"is not a readable BVH file ({type(error).__name__}: {error})") from error
    n_channels = sum(len(joint.channels) for joint in joints)
    if joints and not n_channels:
        raise RejectError("decode", f"has no channels in its {len(joints)} joints, so there is no motion")
    if not joints or frames < 1 or values.size != frames * n_channels:
        raise RejectError(
            "decode",
            f"is truncated: {frames} frames of {n_channels} channels need {frames * n_channels} numbers, got "
            f"{values.size}",
        )
    return Capture(
        places=_compute_positions(joints, values.reshape(frames, n_channels)),
        parents=np.array([joint.parent for joint in joints], dtype=np.int64),
        names=tuple(joint.name for joint in joints),
        frame_s=frame_s,
    )


def _list_joints(hierarchy: str) -> list[_Joint]:
    """Return the joints in the order of their channels, parents before children."""
    joints: list[_Joint] = []
    open_joints: list[int] = []
    for words in (line.split() for line in hierarchy.splitlines()):
        match words:
            case [("ROOT" | "JOINT"), name]:
                joints.append(_Joint(name=name, parent=open_joints[-1] if open_joints else -1))
            case ["End", "Site"]:
                joints.append(_Joint(name=f"{joints[open_joints[-1]].name}End", parent=open_joints[-1]))
            case ["{"]:
                open_joints.append(len(joints) - 1)
            case ["}"]:
                open_joints.pop()
            case ["OFFSET", x, y, z]:
                joints[-1].offset = np.array([float(x), float(y), float(z)])
            case ["CHANNELS", _, *names]:
                if strange := [name for name in names if name not in _CHANNELS]:
                    raise ValueError(f"there is no channel {strange[0]!r}")
                joints[-1].channels = names
    return joints


def _compute_positions(joints: list[_Joint], values: Float64s) -> Float64s:
    """Compute joint positions (T, J, 3) from channel values (T, channels) by forward kinematics."""
    frames = len(values)
    turns = np.empty((frames, len(joints), 3, 3))
    places = np.empty((frames, len(joints), 3))
    column = 0
    for j, joint in enumerate(joints):
        turn = np.broadcast_to(np.eye(3), (frames, 3, 3))
        moved = np.zeros((frames, 3))
        for channel in joint.channels:
            if channel.endswith("position"):
                moved[:, "XYZ".index(channel[0])] = values[:, column]
            else:
                turn = turn @ _build_rotation("XYZ".index(channel[0]), np.radians(values[:, column]))
            column += 1
        if joint.parent < 0:
            places[:, j], turns[:, j] = joint.offset + moved, turn
        else:
            above = turns[:, joint.parent]
            places[:, j] = places[:, joint.parent] + np.einsum("tij,tj->ti", above, joint.offset + moved)
            turns[:, j] = above @ turn
    return places


def _build_rotation(axis: int, angle: Float64s) -> Float64s:
    """Return right-handed rotation matrices (T, 3, 3) about one axis."""
    out = np.zeros((len(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out[:, axis, axis] = 1.0
    out[:, a, a] = out[:, b, b] = np.cos(angle)
    out[:, b, a] = np.sin(angle)
    out[:, a, b] = -np.sin(angle)
    return out


_MOST_BYTES = 1 << 31
"""Largest array that is unpacked."""
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, EOFError, RuntimeError, DataError)
LEGAL = "expected arrays positions (T, 17, 3) and rate_hz; see preprocess/encode/pose/motion_files.py"


def read_npz(path: Path) -> Motion:
    """Read the sequence of a file. Raise RejectError if the arrays differ from the format above."""
    check_source_file(path)
    found = _arrays(path)
    if missing := [name for name in ("positions", "rate_hz") if name not in found]:
        raise RejectError("decode", f"has no array {missing[0]!r}, only {', '.join(found) or 'none'}; {LEGAL}")
    positions, rate, joints = found["positions"], found["rate_hz"], found.get("joints")
    if rate.size != 1 or not 0 < (rate_hz := float(rate.reshape(-1)[0].real)) < float("inf"):
        raise RejectError("decode", f"rate_hz must be one number above 0 (frames per second), got {rate.tolist()}")
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.dtype.kind not in "fiu":
        raise RejectError("decode", f"positions has dtype {positions.dtype} and shape {positions.shape}; {LEGAL}")
    chosen = np.arange(len(JOINTS)) if joints is None else joints
    if chosen.shape != (len(JOINTS),) or chosen.dtype.kind not in "iu":
        raise RejectError("decode", f"joints must be {len(JOINTS)} integers, got {chosen.dtype} {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= positions.shape[1] or (joints is None and positions.shape[1] != len(JOINTS)):
        raise RejectError(
            "decode", f"positions has {positions.shape[1]} joints, but joints selects {chosen.tolist()}; {LEGAL}"
        )
    places = positions[:, chosen].astype(np.float64)
    return Motion(places=places, names=JOINTS, times_s=np.arange(len(places)) / rate_hz)


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a sequence."""
    wanted = ("positions.npy", "rate_hz.npy", "joints.npy")
    try:
        with zipfile.ZipFile(path) as file:
            members = {member.filename: member for member in file.infolist() if member.filename in wanted}
            if large := [name for name, member in members.items() if member.file_size > _MOST_BYTES]:
                raise RejectError("decode", f"{large[0]} declares more than {_MOST_BYTES:,} bytes, the maximum")
            return {name.removesuffix(".npy"): read_npy(file.read(member)) for name, member in members.items()}
    except _DAMAGED as error:
        raise RejectError(
            "decode", f"is not an NPZ file of numbers ({type(error).__name__}: {error}); {LEGAL}"
        ) from error
