"""Reads animations of the game 0 A.D. (PSA), whose bones are those of its standard skeleton "Biped".

A file is little-endian: "PSSA", uint32 version, uint32 size of what follows, uint32 length of a name and the name,
float32 milliseconds a frame, uint32 bones, uint32 frames; then for each bone of each frame float32 x, y, z and a
quaternion, in the space of the model, left-handed, y upwards. A unit is taken for 0.4 m, which makes legs of 0.88 m.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from maskstream.preprocess.encode.source_file import check_source_file
from maskstream.preprocess.source import RejectError

from .motion import Motion

BIPED = (
    "hip", "spine", "spine1", "chest", "shoulder_L", "arm_L", "forearm_L", "hand_L", "finger_L", "fingertip_L",
    "shield", "weapon_bow", "ammo", "weapon_L", "shield_arm", "neck", "head", "helmet", "neck_guard", "shoulder_R",
    "arm_R", "forearm_R", "hand_R", "finger_R", "fingertip_R", "weapon_R", "projectile", "cape1", "cape2", "cape3",
    "thigh_L", "leg_L", "foot_L", "thigh_R", "leg_R", "foot_R", "sheath_01_R", "sheath_01_L", "sheath_02_R",
    "sheath_02_L", "quiver_R", "quiver_L", "knee_L", "knee_R", "elbow_L", "elbow_R",
)  # fmt: skip
"""The bones in their order; those that are no parts of a body hold weapons and clothes."""
UNIT_M = 0.4
_BONE_FLOATS = 7


def read_psa(path: Path) -> Motion:
    """The bones of an animation of the Biped. Raises RejectError if the file is none, or of another skeleton."""
    check_source_file(path)
    data = path.read_bytes()
    try:
        magic, _, size, length = struct.unpack_from("<4s3I", data)
        begin = struct.calcsize("<4s3I") + length
        frame_ms, bones, frames = struct.unpack_from("<f2I", data, begin)
    except struct.error as error:
        raise RejectError("decode", f"is no PSA file, or truncated: it has {len(data)} bytes") from error
    begin += struct.calcsize("<f2I")
    wanted = 4 * _BONE_FLOATS * bones * frames
    if magic != b"PSSA" or begin + wanted != len(data) or size + 12 != len(data):
        raise RejectError(
            "decode",
            f"is no PSA file, or truncated: begins with {magic!r} and declares {frames} frames of {bones} bones, "
            f"{wanted} bytes, but {len(data) - begin} follow",
        )
    if bones != len(BIPED) or not frame_ms > 0:
        raise RejectError("decode", f"has {bones} bones and {frame_ms} ms a frame; the Biped has {len(BIPED)} bones")
    values = np.frombuffer(data, "<f4", offset=begin).reshape(frames, bones, _BONE_FLOATS)[..., :3]
    places = values[..., [0, 2, 1]].astype(np.float64) * UNIT_M  # changes hands
    return Motion(places=places, names=BIPED, times_s=np.arange(frames) * (frame_ms / 1000))
