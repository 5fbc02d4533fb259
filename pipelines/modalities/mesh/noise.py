"""Training noise on the input fields of a next-step model, so that it learns to correct its errors in a rollout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNoise(Config):
    """Normal noise on the fields of nodes whose type is in `kinds`.

    deviation: the standard deviation of the noise, relative to that of each channel: noise of 0.02 on a velocity with
    the standard deviation 0.5 is 0.04. The next state has no noise, so a model that predicts the change learns to
    remove it (gamma = 1). Source: MeshGraphNets (Pfaff et al., 2021, sections 3.2 and A.2.2).
    """

    deviation: float = 0.04
    kinds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.deviation <= 0:
            raise ValueError(f"deviation must be above 0, got {self.deviation}; use noise=None for no noise")

    def added(
        self, fields: npt.NDArray[np.float32], kinds: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Normalised fields, float32 (V, D), with noise; kinds: int64 (V,)."""
        noise = rng.standard_normal(fields.shape, dtype=np.float32) * np.float32(self.deviation)
        return np.where(np.isin(kinds, self.kinds)[:, None], fields + noise, fields)
