"""Randomness of a sample: a pure function of (seed, epoch, sample key, view, purpose), the same on every machine."""

import numpy as np
import xxhash


def sample_rng(seed: int, epoch: int, key: str, view: int, purpose: str) -> np.random.Generator:
    """A Philox generator of its own for one decision ("clip", "crop", "mask", ...) about one view of one sample.

    The purpose is part of the key, so that a new kind of draw never changes an old one. Neither topology, nor batch
    composition, nor the order of calls matters.
    """
    name = f"{seed}\0{epoch}\0{key}\0{view}\0{purpose}".encode()
    return np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(name)))
