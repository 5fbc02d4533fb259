"""Resamples a motion to a fixed rate, so that its bones keep their lengths between two frames.

Positions on a straight line between two poses would shorten a limb that turns; of key poses, which are far apart, by a
half. So the pelvis moves along a line, each bone turns from one direction to the next, and its length changes linearly.
"""

from __future__ import annotations

import numpy as np

from ....shards.media.h36m import PARENTS
from .motion import Floats, Motion

_STILL = 1e-9
_OPPOSITE = 1e-3
"""Below this length of the mean of two directions the bone goes along the straight line."""


def resampled(motion: Motion, rate_hz: float) -> Motion:
    """The poses of a motion of Human3.6M's joints at 0, 1 / rate_hz, ... seconds from its begin.

    Raises RejectError if it is too short for two.
    """
    times = motion.times_s - motion.times_s[0]
    at = np.arange(int(np.floor(times[-1] * rate_hz + 1e-6)) + 1) / rate_hz
    after = np.clip(np.searchsorted(times, at, side="right"), 1, len(times) - 1)
    share = ((at - times[after - 1]) / (times[after] - times[after - 1])).clip(0, 1)[:, None, None]
    bones = motion.places - motion.places[:, PARENTS]
    bones[:, 0] = motion.places[:, 0]
    first, second = bones[after - 1], bones[after]
    made = _between(first, second, share)
    made[:, 0] = ((1 - share) * first + share * second)[:, 0]
    for joint, parent in list(enumerate(PARENTS))[1:]:
        made[:, joint] += made[:, parent]
    return Motion(places=made, names=motion.names, times_s=at)


def _between(first: Floats, second: Floats, share: Floats) -> Floats:
    """Bones (T, J, 3) that lie between two: their directions and lengths are mixed apart."""
    lengths = [np.linalg.norm(one, axis=-1, keepdims=True) for one in (first, second)]
    units = [one / np.maximum(length, _STILL) for one, length in zip((first, second), lengths, strict=True)]
    direction = (1 - share) * units[0] + share * units[1]
    size = np.linalg.norm(direction, axis=-1, keepdims=True)
    length = (1 - share) * lengths[0] + share * lengths[1]
    straight = (1 - share) * first + share * second
    return np.where(size > _OPPOSITE, direction / np.maximum(size, _STILL) * length, straight)
