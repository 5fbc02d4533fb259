"""Randomness of a sample: a pure function of (seed, epoch, sample key, view, purpose), the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from numpy.random.bit_generator import ISeedSequence


def sample_rng(seed: int, epoch: int, key: str, view: int, purpose: str) -> np.random.Generator:
    """A Philox generator of its own for one decision ("clip", "crop", "mask", ...) about one view of one sample.

    The purpose is part of the key, so that a new kind of draw never changes an old one. Neither topology, nor batch
    composition, nor the order of calls matters.
    """
    name = f"{seed}\0{epoch}\0{key}\0{view}\0{purpose}".encode()
    return np.random.Generator(np.random.Philox(_Key(xxhash.xxh3_128_intdigest(name))))  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """128 bits as Philox's key: Philox(key=...) would first draw a seed from the operating system, for nothing."""

    def __init__(self, key: int) -> None:
        self.words = np.array([key & 0xFFFF_FFFF_FFFF_FFFF, key >> 64], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> npt.NDArray[Any]:
        """The key, two words of 64 bits; Philox asks for no more."""
        return self.words
