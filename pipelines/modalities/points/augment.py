"""Normalisation and augmentation of point clouds: random scale, rotation and jitter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Config
from maskstream.shards.errors import ShardError
from maskstream.shards.format.data_errors import parsing
from maskstream.shards.format.dataset import DATASET_JSON, read_dataset_json

Float32s = npt.NDArray[np.float32]

Axis = Literal["x", "y", "z", "any"]
Normalise = Literal["ball", "deviation", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointStats(Config):
    """The mean of all points of a dataset, and one standard deviation for all axes, as DiT-3D normalises ShapeNet."""

    mean: tuple[float, float, float]
    deviation: float

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ValueError(f"deviation must be above 0, got {self.deviation}")

    @classmethod
    def of(cls, location: str | Path) -> Self:
        """The statistics of the split in the folder `location`, from the sums in its dataset.json.

        Use the training split's for all splits. Raises ShardError if dataset.json has no sums of points.
        """
        sums = read_dataset_json(location).get("sums", {}).get("points")
        if not sums:
            raise ShardError(
                f"dataset.json of {location} has no sums of points; write the shards again from the raw data"
            )
        with parsing(f"{location}/{DATASET_JSON}"):
            n, x, y, z, squares = sums
            mean = (x / n, y / n, z / n)
            variance = squares / n / 3 - sum(value * value for value in mean) / 3
            return cls(mean=mean, deviation=math.sqrt(max(variance, 0.0)))


@dataclass(frozen=True, kw_only=True, slots=True)
class PointAugment(Config):
    """Normalises, scales, rotates and jitters the coordinates of a cloud, in this order; features stay unchanged.

    normalise: "ball" subtracts the cloud's mean and divides by the largest norm; "deviation" subtracts the mean and
    divides by the root mean square of all coordinates; a `PointStats` subtracts and divides by the dataset's; "none"
    does nothing. A cloud whose points all coincide is only centred. scale: (low, high) of the uniform draw of a factor.
    rotate: the axis of a rotation by a uniform angle; "any" draws uniformly from all rotations. jitter: the standard
    deviation of normal noise on every coordinate, clipped to [-jitter_most, jitter_most].
    """

    normalise: Normalise | PointStats = "ball"
    scale: tuple[float, float] = (1.0, 1.0)
    rotate: Axis | None = None
    jitter: float = 0.0
    jitter_most: float = 0.05

    def __post_init__(self) -> None:
        if not isinstance(self.normalise, PointStats) and self.normalise not in get_args(Normalise):
            raise ValueError(
                f"normalise must be {', '.join(get_args(Normalise))}, or a PointStats, got {self.normalise!r}"
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high, got {self.scale}")
        if self.rotate is not None and self.rotate not in get_args(Axis):
            raise ValueError(f"rotate must be None or one of {', '.join(get_args(Axis))}, got {self.rotate!r}")
        if self.jitter < 0 or self.jitter_most < 0:
            raise ValueError(f"jitter and jitter_most must be at least 0, got {self.jitter} and {self.jitter_most}")

    def __call__(self, points: Float32s, rng: np.random.Generator) -> Float32s:
        """The augmented points, float32 (N, 3 + features); `points` itself is not changed."""
        xyz = self._normalised(points[:, :3].astype(np.float64))
        if self.scale[0] < self.scale[1]:
            xyz *= rng.uniform(*self.scale)
        else:
            xyz *= self.scale[0]
        if self.rotate is not None:
            xyz = xyz @ rotation(self.rotate, rng).T
        if self.jitter > 0:
            noise = rng.standard_normal(xyz.shape) * self.jitter
            xyz += np.clip(noise, -self.jitter_most, self.jitter_most)
        out = points.astype(np.float32)
        out[:, :3] = xyz
        return out

    def _normalised(self, xyz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if isinstance(self.normalise, PointStats):
            return (xyz - self.normalise.mean) / self.normalise.deviation
        if self.normalise == "none":
            return xyz
        xyz = xyz - xyz.mean(axis=0)
        squares = np.square(xyz)
        size = np.sqrt(squares.sum(axis=1).max() if self.normalise == "ball" else squares.mean())
        return xyz / size if size > 0 else xyz


def rotation(axis: Axis, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draws a rotation matrix, float64 (3, 3): a uniform angle about one axis, or uniform over all rotations."""
    if axis == "any":
        a, b, c, d = (q := rng.standard_normal(4)) / np.linalg.norm(q)
        return np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
            ]
        )
    angle = rng.uniform(0, 2 * np.pi)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn
