"""Keys that occur twice are found by their hashes, and equal hashes of different keys are no mistake."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskstream.shards.format.part_writer import find_repeated_keys, hash_keys

GROUPS = st.lists(st.lists(st.text("ab", max_size=3), max_size=6), max_size=4)


@given(groups=GROUPS)
def test_repeated_keys(groups: list[list[str]]) -> None:
    flat = [key for group in groups for key in group]
    wanted = sorted({key for key in flat if flat.count(key) > 1})
    assert find_repeated_keys([hash_keys(group) for group in groups], groups) == wanted


def test_equal_hashes_are_looked_into_and_others_are_not() -> None:
    same = np.zeros(2, np.uint64)
    assert find_repeated_keys([same], [["a", "b"]]) == []

    def never() -> Iterator[list[str]]:
        raise AssertionError("the keys were read")
        yield []

    assert find_repeated_keys([hash_keys(["a", "b"])], never()) == []
