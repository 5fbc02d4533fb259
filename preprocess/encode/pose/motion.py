"""A motion as read from a file: the named joints of a skeleton over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.source import RejectError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """Joints over time. places: float64 (T, J, 3) in metres, x and y along the ground and z upwards, right-handed.
    names: the J joints' names. times_s: float64 (T,), ascending.

    Raises RejectError if there are fewer than two frames, if a number is not finite, or if times do not ascend.
    """

    places: Floats
    names: tuple[str, ...]
    times_s: Floats

    def __post_init__(self) -> None:
        frames = len(self.places)
        if self.places.shape != (frames, len(self.names), 3) or self.times_s.shape != (frames,):
            raise RejectError(
                "decode",
                f"has places {self.places.shape} of {len(self.names)} joints at {self.times_s.shape} times; expected "
                "(frames, joints, 3)",
            )
        if frames < 2:
            raise RejectError("check", f"has {frames} pose{'s'[: frames != 1]}; a motion needs two or more")
        if bad := int((~np.isfinite(self.places).all(axis=(1, 2))).sum()):
            raise RejectError("check", f"{bad} of {frames} poses have a number that is not finite")
        if not (np.isfinite(self.times_s).all() and (np.diff(self.times_s) > 0).all()):
            raise RejectError("check", "the times of its frames do not ascend")


def upright(places: Floats) -> Floats:
    """Places (..., 3) of files whose y points upwards, with z upwards."""
    return np.stack([places[..., 0], -places[..., 2], places[..., 1]], axis=-1)
