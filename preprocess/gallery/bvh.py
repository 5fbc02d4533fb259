"""Reads joint positions from BVH motion captures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...shards.errors import DatasetError

Floats = npt.NDArray[np.float64]


@dataclass(kw_only=True, slots=True)
class _Joint:
    name: str
    parent: int
    offset: Floats = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)


def read_bvh(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], tuple[str, ...]]:
    """Positions float32 (T, J, 3) in the file's units, parents int64 (J,) (-1: none), and the joints' names.

    The ends of limbs ("End Site") are joints too, named after their parent. Raises DatasetError if the file is
    truncated.
    """
    hierarchy, mark, motion = path.read_text(encoding="utf-8").partition("MOTION")
    joints = _joints(hierarchy)
    lines = motion.split("\n", 3)
    if not mark or len(lines) < 4:
        raise DatasetError(f"{path} is no BVH file with a MOTION section")
    frames = int(lines[1].split()[-1])
    values = np.array(lines[3].split(), dtype=np.float64)
    n_channels = sum(len(joint.channels) for joint in joints)
    if values.size != frames * n_channels:
        raise DatasetError(
            f"{path} is truncated: {frames} frames of {n_channels} channels need {frames * n_channels} numbers, got "
            f"{values.size}"
        )
    positions = _positions(joints, values.reshape(frames, n_channels))
    parents = np.array([joint.parent for joint in joints], dtype=np.int64)
    return positions.astype(np.float32), parents, tuple(joint.name for joint in joints)


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
