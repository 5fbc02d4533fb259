"""The bytes of small motions in several formats, written without the package's own code."""

from __future__ import annotations

import io
import struct

import numpy as np

from maskstream.preprocess.encode.pose.motion_files import RIGS
from maskstream.shards.media.h36m import PARENTS

from ...pipelines.small_media import random_motion


def lugaru_bytes(keys: np.ndarray, speed: list[float]) -> bytes:
    """A file of Lugaru's key poses (T, 20, 3)."""
    joints = keys.shape[1]
    data = struct.pack(">2i", len(keys), joints)
    for pose, one in zip(keys, speed, strict=True):
        data += pose.astype(">f4").tobytes() + bytes(5 * joints) + struct.pack(">f", one)
    return data + bytes(84)


def bvh_bytes(pose: np.ndarray, ways: np.ndarray, frame_s: float = 0.02) -> bytes:
    """A capture of a pose (17, 3), y upwards, whose root is at `ways` (T, 3); its joints are those of a known rig."""
    rig = RIGS["BVH with legs, feet and arms"]
    names = {joint: name for joint, name in enumerate(rig) if isinstance(name, str)} | {8: "Spine1"}

    def block(joint: int, depth: int) -> str:
        offset = pose[joint] - pose[PARENTS[joint]] if joint else np.zeros(3)
        channels = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
        head = f"{'JOINT' if joint else 'ROOT'} {names[joint]}\n{{\nOFFSET {offset[0]} {offset[1]} {offset[2]}\n"
        head += f"CHANNELS {'3 Zrotation Xrotation Yrotation' if joint else channels}\n"
        below = [block(one, depth + 1) for one, above in enumerate(PARENTS) if above == joint and one]
        return head + "".join(below or ["End Site\n{\nOFFSET 0 1 0\n}\n"]) + "}\n"

    rows = [" ".join(f"{x:.6f}" for x in [*way, *np.zeros(3 * 17)]) for way in ways]
    text = f"HIERARCHY\n{block(0, 0)}MOTION\nFrames: {len(ways)}\nFrame Time: {frame_s}\n" + "\n".join(rows) + "\n"
    return text.encode()


def motion_bytes(ending: str) -> bytes:
    """A good file of a motion by its ending: .bvh or .npz."""
    rng = np.random.default_rng(5)
    if ending == ".npz":
        file = io.BytesIO()
        np.savez(file, positions=random_motion(rng, 30), rate_hz=50)
        return file.getvalue()
    upright = random_motion(rng, 1)[0][:, [0, 2, 1]] * 100
    return bvh_bytes(upright, rng.normal(size=(20, 3)))
