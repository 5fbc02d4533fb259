"""Which joints of a file are the 17 joints of Human3.6M, for each rig that is known.

A joint of Human3.6M is a joint of the file, or the middle of two: the thorax lies at the height of the shoulders, the
neck between it and the head.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from maskstream.preprocess.source import RejectError
from maskstream.shards.media.h36m import JOINTS

from .motion import Motion

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
    "0 A.D.": (
        *("hip", "thigh_R", "leg_R", "foot_R", "thigh_L", "leg_L", "foot_L"),
        *("spine1", ("arm_L", "arm_R"), "neck", "head"),
        *("arm_L", "forearm_L", "hand_L", "arm_R", "forearm_R", "hand_R"),
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


def in_h36m(motion: Motion) -> tuple[Motion, str]:
    """The motion of Human3.6M's joints, and the name of the rig that the file has.

    A prefix of names that ends in a colon (mixamorig:Hips) is left out. Raises RejectError if the file has no rig that
    is known; the message names what the likeliest one lacks.
    """
    number = {name.rpartition(":")[2]: i for i, name in reversed(list(enumerate(motion.names)))}
    lacking = {name: sorted({one for one in _needed(rig) if one not in number}) for name, rig in RIGS.items()}
    likeliest = min(lacking, key=lambda name: len(lacking[name]))
    if lacking[likeliest]:
        raise RejectError(
            "decode",
            f"its {len(motion.names)} joints are of no rig that is known; {likeliest} would need "
            f"{', '.join(lacking[likeliest])}. Known are {', '.join(RIGS)}",
        )
    joints = [motion.places[:, [number[one] for one in _both(joint)]].mean(axis=1) for joint in RIGS[likeliest]]
    return Motion(places=np.stack(joints, axis=1), names=JOINTS, times_s=motion.times_s), likeliest


def _both(joint: str | tuple[str, str]) -> tuple[str, ...]:
    return (joint,) if isinstance(joint, str) else joint


def _needed(rig: Rig) -> set[str]:
    return {one for joint in rig for one in _both(joint)}
