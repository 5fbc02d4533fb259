"""Chooses what is held out for validation: whole groups of sources that are alike, by the hash of their names.

Near-duplicates in both splits would let a model that only remembers its training data look good. The choice depends on
names alone, so it is the same on every machine, and stays the same for a group when others are added or taken away
from other labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import xxhash


def held_out_groups(sources: Iterable[tuple[int, str]], share: float = 0.2) -> set[str]:
    """The groups that are validation; sources: the label and the group of each source.

    Of each label about `share` of the sources are held out: groups are taken in the order of their hashes, while the
    share is not exceeded by more than half a group. At least one group of each label is held out, and at least one is
    kept for training; the only group of a label is kept. A group of several labels is held out whole if one of them
    holds it out.
    """
    by_label: dict[int, Counter[str]] = {}
    for label, group in sources:
        by_label.setdefault(label, Counter())[group] += 1
    found: set[str] = set()
    for sizes in by_label.values():
        wanted = share * sizes.total()
        taken = 0
        for group in sorted(sizes, key=_hash)[: len(sizes) - 1]:
            if taken and taken + sizes[group] / 2 > wanted:
                continue
            taken += sizes[group]
            found.add(group)
    return found


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())
