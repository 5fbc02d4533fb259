"""Random draws of a sample, a pure function of (seed, epoch, key, view, purpose) on every machine, and its place.

What a batch shares is drawn by generators of the global batch's number. A sample knows its place in the run (batch,
row, progress), so ranks and workers agree without communication.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from numpy.random.bit_generator import ISeedSequence


class Place(NamedTuple):
    """The place of a sample in the run. It is the same at every topology, since batches span all ranks.

    step: the number of its batch, from 0, counted through all epochs. row: its row in that global batch of `rows` rows.
    progress: in [0, 1], 0 at the first batch of the run, 1 at the last batch and after it.
    """

    step: int = 0
    row: int = 0
    rows: int = 1
    progress: float = 0.0


START = Place()


def run_progress(step: int, steps: int | None) -> float:
    """The progress of batch `step` in a run of `steps` batches; 0 if `steps` is None."""
    if steps is None:
        return 0.0
    return 1.0 if steps == 1 else min(step / (steps - 1), 1.0)


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
