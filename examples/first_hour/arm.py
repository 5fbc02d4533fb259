"""A simulated arm of two joints that reaches for a cube or pushes it away, seen by two cameras."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from lerobot_layout import Episode

SIDE_PX, LENGTHS = 96, (26.0, 18.0)
TOP, WRIST = "observation.images.top", "observation.images.wrist"
RATE = 0.2
"""The share of the way to its goal that a joint turns in a frame."""


def episode(seed: int, task: str, n_frames: int) -> Episode:
    """Its arrays: action, the turns float32 (T, 2) in radians, and observation.state, the angles that they begin at."""
    rng = np.random.default_rng(seed)
    angles, cube = rng.uniform(-1.0, 1.0, 2), rng.uniform(0.8, 2.0, 2)
    goal = cube if task == "reach the cube" else -cube
    states, actions, top = [], [], []
    for _ in range(n_frames):
        turn = RATE * (goal - angles)
        states.append(angles.copy())
        actions.append(turn)
        top.append(_picture(angles, cube))
        angles = angles + turn
    arrays = {"action": np.float32(actions), "observation.state": np.float32(states)}
    wrist = [_around_the_hand(picture, state) for picture, state in zip(top, states, strict=True)]
    return Episode(task=task, arrays=arrays, cameras={TOP: np.stack(top), WRIST: np.stack(wrist)})


def _joints(angles: np.ndarray) -> np.ndarray:
    """The places of base, elbow and hand, float (3, 2) in pixels."""
    along = np.cumsum(angles)
    steps = np.stack([np.cos(along), np.sin(along)], 1) * np.array(LENGTHS)[:, None]
    return SIDE_PX / 2 + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])


def _picture(angles: np.ndarray, cube: np.ndarray) -> np.ndarray:
    """RGB uint8 (96, 96, 3)."""
    picture = np.full((SIDE_PX, SIDE_PX, 3), (205, 200, 190), np.uint8)
    x, y = _joints(cube)[2].round().astype(int).tolist()
    cv2.rectangle(picture, (x - 5, y - 5), (x + 5, y + 5), (200, 60, 40), -1)
    places = _joints(angles).round().astype(int).tolist()
    for begin, end in pairwise(places):
        cv2.line(picture, begin, end, (60, 70, 90), 6, cv2.LINE_AA)
    cv2.circle(picture, places[2], 5, (30, 120, 200), -1, cv2.LINE_AA)
    return picture


def _around_the_hand(picture: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The half of the picture's width around the hand, enlarged to its size."""
    x, y = _joints(angles)[2]
    turned = np.array([[0.5, 0, x - SIDE_PX / 4], [0, 0.5, y - SIDE_PX / 4]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, turned, (SIDE_PX, SIDE_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)
