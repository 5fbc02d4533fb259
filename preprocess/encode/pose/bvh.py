"""Reads joint positions from BVH motion captures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.source_file import check_source_file
from maskstream.preprocess.source import RejectError

from .motion import Floats, Motion, upright

_CHANNELS = frozenset(f"{axis}{what}" for axis in "XYZ" for what in ("position", "rotation"))


@dataclass(kw_only=True, slots=True)
class _Joint:
    name: str
    parent: int
    offset: Floats = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """A motion capture in the file's units and axes.

    places: float64 (T, J, 3). parents: int64 (J,), -1 for none. names: of the joints; the ends of limbs ("End Site")
    are joints too, named after their parent (HeadEnd). frame_s: seconds from one frame to the next.
    """

    places: Floats
    parents: npt.NDArray[np.int64]
    names: tuple[str, ...]
    frame_s: float

    def motion(self, unit_m: float, up: Literal["y", "z"]) -> Motion:
        """The motion, where a unit of the file is `unit_m` metres and its axis `up` points upwards."""
        places = self.places * unit_m
        times: Floats = np.arange(len(places), dtype=np.float64) * self.frame_s
        return Motion(places=upright(places) if up == "y" else places, names=self.names, times_s=times)


def read_bvh(path: Path) -> Capture:
    """The joints of a capture. Raises RejectError if the file is no BVH or is truncated."""
    check_source_file(path)
    hierarchy, mark, motion = path.read_bytes().decode("utf-8", "replace").partition("MOTION")
    lines = motion.strip().split("\n", 2)
    if not mark or len(lines) < 3:
        raise RejectError("decode", "is no BVH file with a HIERARCHY and a MOTION section")
    try:
        joints = _joints(hierarchy)
        frames, frame_s = int(lines[0].split()[-1]), float(lines[1].split()[-1])
        values = np.array(lines[2].split(), dtype=np.float64)
    except (ValueError, IndexError) as error:
        raise RejectError("decode", f"is no BVH file that can be read ({type(error).__name__}: {error})") from error
    n_channels = sum(len(joint.channels) for joint in joints)
    if joints and not n_channels:
        raise RejectError("decode", f"has no channels in its {len(joints)} joints, so nothing moves")
    if not joints or frames < 1 or values.size != frames * n_channels:
        raise RejectError(
            "decode",
            f"is truncated: {frames} frames of {n_channels} channels need {frames * n_channels} numbers, got "
            f"{values.size}",
        )
    return Capture(
        places=_positions(joints, values.reshape(frames, n_channels)),
        parents=np.array([joint.parent for joint in joints], dtype=np.int64),
        names=tuple(joint.name for joint in joints),
        frame_s=frame_s,
    )


def _joints(hierarchy: str) -> list[_Joint]:
    """The joints in the order of their channels, parents before children."""
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


def _positions(joints: list[_Joint], values: Floats) -> Floats:
    """Forward kinematics: joint positions (T, J, 3) from channel values (T, channels)."""
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
                turn = turn @ _rotation("XYZ".index(channel[0]), np.radians(values[:, column]))
            column += 1
        if joint.parent < 0:
            places[:, j], turns[:, j] = joint.offset + moved, turn
        else:
            above = turns[:, joint.parent]
            places[:, j] = places[:, joint.parent] + np.einsum("tij,tj->ti", above, joint.offset + moved)
            turns[:, j] = above @ turn
    return places


def _rotation(axis: int, angle: Floats) -> Floats:
    """Right-handed rotation matrices (T, 3, 3) about one axis."""
    out = np.zeros((len(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out[:, axis, axis] = 1.0
    out[:, a, a] = out[:, b, b] = np.cos(angle)
    out[:, b, a] = np.sin(angle)
    out[:, a, b] = -np.sin(angle)
    return out
