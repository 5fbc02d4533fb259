"""Near hashes are found as a comparison of all with all finds them."""

import numpy as np
import numpy.typing as npt
import pytest

from maskstream.preprocess.curate import near as searching
from maskstream.preprocess.curate.near import near

UInt8s = npt.NDArray[np.uint8]


def hashes(count: int, seed: int) -> UInt8s:
    """Hashes of which neighbours differ in 0 to 60 bits; some share most of their bits with all others."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    made[: count // 4, 8:] = 0
    for at in range(1, count, 2):
        made[at] = made[at - 1] ^ np.packbits(rng.permutation(256) < rng.integers(0, 61))
    return made


def compared(ours: UInt8s, others: UInt8s, distance: int) -> set[tuple[int, int]]:
    differing = np.bitwise_count(ours[:, None] ^ others[None]).sum(2)
    return set(zip(*(one.tolist() for one in np.nonzero(differing <= distance)), strict=True))


@pytest.mark.parametrize("distance", [0, 15, 16, 18, 31, 47])
def test_near_hashes_are_those_of_all_comparisons(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_AT_ONCE", 100)
    ours, others = hashes(250, 0), np.concatenate([hashes(250, 0)[::-1], hashes(90, 1)])
    wanted = compared(ours, others, distance)
    if distance == 47:
        assert len(near(ours, others, 48)) >= len(wanted)
    found = near(ours, others, distance).tolist()
    assert len(found) == len(wanted) >= 250
    assert set(map(tuple, found)) == wanted
    itself = near(ours, ours, distance).tolist()
    assert set(map(tuple, itself)) == {(a, b) for a, b in compared(ours, ours, distance) if a < b}
    assert len(itself) == len(set(map(tuple, itself)))


def test_among_many_those_of_31_bits_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_FEW", 0)
    ours = hashes(400, 2)
    found = set(map(tuple, near(ours, ours, 48).tolist()))
    all_of_them = {(a, b) for a, b in compared(ours, ours, 48) if a < b}
    assert {(a, b) for a, b in compared(ours, ours, 31) if a < b} <= found <= all_of_them
    assert len(found) >= 0.95 * len(all_of_them)


def test_nothing_is_near_none() -> None:
    none = np.empty((0, 32), np.uint8)
    assert near(none, hashes(4, 0), 8).shape == near(hashes(4, 0), none, 8).shape == (0, 2)
