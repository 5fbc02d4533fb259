"""The generator of a sample is numpy's Philox with a hash of its name as key."""

import numpy as np
import xxhash

from maskstream.pipelines.stream.rng import sample_rng


def test_it_is_philox_keyed_with_the_name() -> None:
    for epoch in range(50):
        found = sample_rng(7, epoch, "shard-3/a.b", 1, "crop")
        name = f"7\0{epoch}\0shard-3/a.b\x001\0crop".encode()
        expected = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(name)))
        assert (found.integers(0, 2**63, 6) == expected.integers(0, 2**63, 6)).all()
        assert (found.permutation(20) == expected.permutation(20)).all()
        assert (found.normal(size=3) == expected.normal(size=3)).all()
