"""Random draws of samples, a pure function of (seed, epoch, key, view, purpose) on every machine, and positions in the
run.

Numbers shared by a batch are drawn by generators keyed by the global batch's number. Every sample has a position in the
run (batch, row, progress), so ranks and workers agree without communication.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from numpy.random.bit_generator import ISeedSequence

from maskstream.shards.arrays import Float64s, UInt64s


class Place(NamedTuple):
    """Position of a sample in the run; the same at every topology, since batches span all ranks."""

    step: int = 0
    """Number of its batch, from 0, counted through all epochs."""
    row: int = 0
    """Row in that global batch."""
    rows: int = 1
    """Number of rows of the global batch."""
    progress: float = 0.0
    """Progress in [0, 1]: 0 at the first batch of the run, 1 at the last batch and after it."""


START = Place()


def run_progress(step: int, steps: int | None) -> float:
    """Return the progress of batch `step` in a run of `steps` batches; 0 if `steps` is None."""
    if steps is None:
        return 0.0
    return 1.0 if steps == 1 else min(step / (steps - 1), 1.0)


def sample_rng(seed: int, epoch: int, key: str, view: int, purpose: str) -> np.random.Generator:
    """Return the Philox generator of one decision (`purpose`: "clip", "crop", "mask", ...) for one view of one sample.

    The purpose is part of the key, so adding a new kind of draw never changes existing ones. Draws do not depend on
    topology, batch composition or the order of calls.
    """
    return np.random.Generator(_make_philox(_number(seed, epoch, key, view, purpose)))


def sample_rngs(seed: int, samples: Iterable[tuple[int, str, int]], purpose: str) -> Iterator[np.random.Generator]:
    """Yield the generators of one decision for many samples, each identified by epoch, key and view.

    Each generator is valid until the next one is yielded: a single generator's state is reset, which takes a fifth of
    the time of creating one.
    """
    bits, nothing = _make_philox(0), (0, 0, 0, 0)
    rng = np.random.Generator(bits)
    for epoch, key, view in samples:
        number = _number(seed, epoch, key, view, purpose)
        words = (number & 0xFFFF_FFFF_FFFF_FFFF, number >> 64)
        state: Any = {  # numpy also accepts tuples, which are faster to create
            "bit_generator": "Philox",
            "state": {"counter": nothing, "key": words},
            "buffer": nothing,
            "buffer_pos": len(nothing),
            "has_uint32": 0,
            "uinteger": 0,
        }
        bits.state = state
        yield rng


def sample_keys(seed: int, samples: Iterable[tuple[int, str, int]], purpose: str) -> UInt64s:
    """Return the keys of the generators of `sample_rngs`, uint64 (n, 2), for kernels that reproduce their draws."""
    digest = xxhash.xxh3_128_digest
    keys = [digest(f"{seed}\0{epoch}\0{key}\0{view}\0{purpose}".encode()) for epoch, key, view in samples]
    return np.frombuffer(b"".join(keys), ">u8").reshape(-1, 2)[:, ::-1].astype(np.uint64)


def _make_philox(number: int) -> np.random.Philox:
    """Create Philox in its initial state with a number as key."""
    return np.random.Philox(_Key(number))  # type: ignore[arg-type]


def _number(seed: int, epoch: int, key: str, view: int, purpose: str) -> int:
    """Return Philox's key for one decision."""
    return xxhash.xxh3_128_intdigest(f"{seed}\0{epoch}\0{key}\0{view}\0{purpose}".encode())


def sample_numbers(seed: int, samples: Iterable[tuple[int, str]], view: int, purpose: str) -> Float64s:
    """Return two uniform numbers in [0, 1) for one decision on each sample, identified by epoch and key: float64 (n,
    2).

    They are the hash that would key `sample_rng`'s generator, for plans that need a number for every sample of a split.
    """
    numbers = (_number(seed, epoch, key, view, purpose).to_bytes(16) for epoch, key in samples)
    words = np.frombuffer(b"".join(numbers), ">u8").reshape(-1, 2)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


class _Key(ISeedSequence):
    """Provides Philox's 128-bit key. Philox(key=...) would first read an unused seed from the operating system."""

    def __init__(self, key: int) -> None:
        self.words = np.array([key & 0xFFFF_FFFF_FFFF_FFFF, key >> 64], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> npt.NDArray[Any]:
        """Return the key as two 64-bit words, all that Philox requests."""
        return self.words
