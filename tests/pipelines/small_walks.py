"""A small walk that no simulator recorded: on an arc, with depth that tells which frame and pixel it is of."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess.encode.trajectory.encoder import TrajectoryEncoder, Walk
from maskstream.shards.format.sample import Sample
from maskstream.shards.media.camera_pose import build_level_pose
from maskstream.shards.members.text import json_member

WIDTH, HEIGHT, FPS = 64, 48, 10
SPEED, TURN = 1.2, 0.5
"""Metres and radians (to the left) a second."""


def depth_at(frame: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The depth in millimetres at places of a frame; it tells which frame and which pixel they are."""
    return 100 + 20 * (WIDTH * rows + columns) + frame


def arc(frames: int) -> np.ndarray:
    """The poses (T, 7) of a walk on a circle to the left, eyes 1.5 m high."""
    heading = 0.3 + TURN * np.arange(frames) / FPS
    x, y = SPEED / TURN * np.sin(heading), -SPEED / TURN * np.cos(heading)
    return np.stack([build_level_pose(np.array([a, b, 1.5]), float(h)) for a, b, h in zip(x, y, heading, strict=True)])


def small_walk(frames: int = 40) -> Walk:
    """A walk on an arc."""
    smooth = np.random.default_rng(5).integers(0, 256, (6, 40, 3), dtype=np.uint8)
    wide = cv2.resize(smooth, (WIDTH + 3 * frames, HEIGHT), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.indices((HEIGHT, WIDTH))
    return Walk(
        frames=[np.ascontiguousarray(wide[:, 3 * t : 3 * t + WIDTH]) for t in range(frames)],
        depth=[depth_at(t, rows, columns).astype(np.uint16) for t in range(frames)],
        path=arc(frames),
        lens=(50.0, 52.0, WIDTH / 2, HEIGHT / 2),
        fps=FPS,
    )


def trajectory_samples(raw: Path, count: int, walk: Walk | None = None) -> list[Sample]:
    """Samples that share a walk."""
    made = TrajectoryEncoder().encoded(walk or small_walk())
    members = {**made.members, "json": json_member(made.meta)}
    return [Sample(key=f"s{i}", members=members, source=f"{i}") for i in range(count)]
