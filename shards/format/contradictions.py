"""Compares the values of a part with each other and with its shards, so no reader meets an impossible one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .shard_facts import ShardFacts

_AT_ONCE = 1 << 14
"""Samples that are compared at once; their numbers stay in the processor's cache."""

Ints = npt.NDArray[np.integer]


def contradictions(
    shards: Sequence[ShardFacts],
    shard_names: Sequence[str],
    shard: Ints,
    label: Ints,
    members: Mapping[str, tuple[Ints, Ints]],
) -> Iterator[str]:
    """What contradicts the part's `shards` or itself in the columns of N samples, each (N,).

    shard: indexes of shard_names. members: offset and size of each component's members in the tar, in bytes, 0 if a
    sample lacks it.
    """
    declared = {one.name: one for one in shards}
    if len({*shard_names}) < len(shard_names) or len(declared) < len(shards):
        yield "names a shard twice"
    if strange := [name for name in shard_names if name not in declared]:
        yield f"names {len(strange)} shards that it does not describe, such as {strange[0]!r}"
        return
    if len(shard) and not 0 <= shard.min() <= shard.max() < len(shard_names):
        yield f"has shard numbers from {shard.min()} to {shard.max()}, but {len(shard_names)} shards"
        return
    number = {one.name: i for i, one in enumerate(shards)}
    numbers = np.array([number[name] for name in shard_names], np.int64)
    wanted = np.repeat(np.arange(len(shards)), [min(one.samples, len(shard) + 1) for one in shards])
    if not np.array_equal(wanted, numbers[shard] if len(shard) else shard):
        yield f"has {len(shard)} samples that are not in the order and numbers that it says of its {len(shards)} shards"
        return
    if len(label) and label.min() < -1:
        yield f"has the label {label.min()}; labels begin at 0, and -1 is none"
    sizes = np.array([declared[name].size_bytes for name in shard_names], np.int64)
    for name, (offset, size) in members.items():
        for begin in range(0, len(shard), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            wrong = ((offset[some] | size[some]) < 0) | (offset[some] > sizes[shard[some]] - size[some])
            if wrong.any():
                i = begin + int(np.argmax(wrong))
                yield (
                    f"places component {name!r} of sample {i} at bytes {offset[i]} to {int(offset[i]) + int(size[i])} "
                    f"of {shard_names[shard[i]]}, which has {sizes[shard[i]]} bytes"
                )
                break
