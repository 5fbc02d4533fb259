"""Noise on the fields that a next-step model sees, so that it learns to correct its own small errors in a rollout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNoise(Config):
    """Normal noise at nodes of the types `kinds` (MeshGraphNets, Pfaff et al., 2021, section 3.2 and A.2.2).

    deviation: in deviations of each channel, so 0.02 of a velocity whose deviation is 0.5 is 0.04. The step's end stays
    the true one: a model that predicts the change has to take the noise away again (their gamma of 1).
    """

    deviation: float = 0.04
    kinds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.deviation <= 0:
            raise ValueError(f"noise has a positive deviation, got {self.deviation}; give noise=None for none")

    def added(
        self, fields: npt.NDArray[np.float32], kinds: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Normalised fields float32 (V, D) with noise."""
        noise = rng.standard_normal(fields.shape, dtype=np.float32) * np.float32(self.deviation)
        return np.where(np.isin(kinds, self.kinds)[:, None], fields + noise, fields)
