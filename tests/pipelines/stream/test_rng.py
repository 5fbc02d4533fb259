"""The generator of a sample is numpy's Philox with a hash of its name as key."""

import numpy as np
import xxhash

from maskstream.pipelines.stream.rng import sample_rng, sample_rngs


def test_it_is_philox_keyed_with_the_name() -> None:
    for epoch in range(50):
        found = sample_rng(7, epoch, "shard-3/a.b", 1, "crop")
        name = f"7\0{epoch}\0shard-3/a.b\x001\0crop".encode()
        expected = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(name)))
        assert (found.integers(0, 2**63, 6) == expected.integers(0, 2**63, 6)).all()
        assert (found.permutation(20) == expected.permutation(20)).all()
        assert (found.normal(size=3) == expected.normal(size=3)).all()


def test_those_of_many_samples_are_those_of_each() -> None:
    samples = [(number % 3, f"shard-3/{number}", number % 2) for number in range(50)]
    for (epoch, key, view), found in zip(samples, sample_rngs(7, samples, "crop"), strict=True):
        expected = sample_rng(7, epoch, key, view, "crop")
        assert found.integers(1000) == expected.integers(1000)  # leaves half of a word
        assert found.random() == expected.random()
        assert (found.permutation(20) == expected.permutation(20)).all()
        assert (found.normal(size=3) == expected.normal(size=3)).all()
