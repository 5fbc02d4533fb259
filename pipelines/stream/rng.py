"""Random draws of a sample: a pure function of (seed, epoch, sample key, view, purpose) on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from numpy.random.bit_generator import ISeedSequence


def sample_rng(seed: int, epoch: int, key: str, view: int, purpose: str) -> np.random.Generator:
    """The Philox generator of one decision (`purpose`: "clip", "crop", "mask", ...) for one view of one sample.

    The purpose is part of the key, so a new kind of draw never changes an existing one. The draws do not depend on
    topology, batch composition or the order of calls.
    """
    name = f"{seed}\0{epoch}\0{key}\0{view}\0{purpose}".encode()
    return np.random.Generator(np.random.Philox(_Key(xxhash.xxh3_128_intdigest(name))))  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """Supplies Philox's 128-bit key. Philox(key=...) would first read an unused seed from the operating system."""

    def __init__(self, key: int) -> None:
        self.words = np.array([key & 0xFFFF_FFFF_FFFF_FFFF, key >> 64], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> npt.NDArray[Any]:
        """The key as two 64-bit words, which is all that Philox requests."""
        return self.words
