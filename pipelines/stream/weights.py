"""How often each sample of a split comes in an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xxhash

from .rng import sample_rng

Int64Array = npt.NDArray[np.int64]
MAX_REPEATS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A weight for each sample, float64 (N,), from 0 on. An epoch has N samples in all; a sample of weight w comes
    w N / sum times in it, rounded up or down at random so that this is its mean over epochs (systematic sampling).

    Raises ValueError for other numbers.
    """

    values: npt.NDArray[np.float64]
    _sums: npt.NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = np.array(self.values, np.float64)  # a copy: the caller's array may change
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
            raise ValueError(
                f"weights {values.shape} must be finite numbers from 0 on, one a sample, and not all 0; they are from "
                f"{values.min(initial=np.inf):g} to {values.max(initial=-np.inf):g}"
            )
        sums = np.cumsum(values)
        object.__setattr__(self, "values", values)
        scaled = np.where(sums == sums[-1], float(len(values)), sums * (len(values) / sums[-1]))
        object.__setattr__(self, "_sums", scaled)
        if self.repeats > MAX_REPEATS:
            raise ValueError(
                f"a weight of {values.max():g} among {values.sum():g} would repeat a sample {self.repeats} times"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self.checksum)

    @property
    def repeats(self) -> int:
        """At most how often a sample comes in an epoch."""
        return int(np.ceil(self.values.max() * len(self.values) / self.values.sum())) + 1

    @property
    def checksum(self) -> str:
        """The xxh3_128 of the weights in hex."""
        return xxhash.xxh3_128_hexdigest(self.values.tobytes())

    def counts(self, seed: int, epoch: int) -> Int64Array:
        """How often each sample comes in an epoch, int64 (N,), N in all."""
        shift = sample_rng(seed, epoch, "weights", 0, "order").random()
        ends = np.floor(self._sums + shift).astype(np.int64)
        return np.diff(ends, prepend=0)

    def drawn(self, rng: np.random.Generator) -> int:
        """A sample by weight."""
        return int(np.searchsorted(self._sums, rng.random() * self._sums[-1], side="right"))
