"""Near hashes are found as a comparison of all with all finds them."""

import numpy as np
import numpy.typing as npt
import pytest

from maskstream.preprocess.curate import near as searching
from maskstream.preprocess.curate.near import near
from maskstream.shards.errors import MaskstreamError

UInt8s = npt.NDArray[np.uint8]


def hashes(count: int, seed: int) -> UInt8s:
    """Hashes of which neighbours differ in 0 to 60 bits; some share most of their bits with all others, and some all
    of them.
    """
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    made[: count // 4, 8:] = 0
    for at in range(1, count, 2):
        made[at] = made[at - 1] ^ np.packbits(rng.permutation(256) < rng.integers(0, 61))
    made[-count // 8 :] = made[-1]
    return made


def compared(ours: UInt8s, others: UInt8s, distance: int, most: int = 16) -> set[tuple[int, int]]:
    """The pairs that differ in at most `distance` bits and have a band of 16 bits that differs in `most` or fewer."""
    places = np.random.default_rng(0).permutation(256)
    one, two = (np.unpackbits(some, axis=1)[:, places] for some in (ours, others))
    differing = (one[:, None] != two[None]).reshape(len(one), len(two), 16, 16).sum(3)
    met = (differing.sum(2) <= distance) & (differing <= most).any(2)
    return set(zip(*(some.tolist() for some in np.nonzero(met)), strict=True))


@pytest.mark.parametrize("small", [0, 1 << 10])
@pytest.mark.parametrize("distance", [0, 15, 16, 18, 31, 47])
def test_near_hashes_are_those_of_all_comparisons(distance: int, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_AT_ONCE", 100)
    monkeypatch.setattr(searching, "_SMALL", small)
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


@pytest.mark.parametrize(("many", "most"), [(0, 1), (1 << 20, 2)])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_pair_with_a_near_band_is_found_once(
    many: int, most: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_SMALL", 0)
    monkeypatch.setattr(searching, "_MANY", many)
    monkeypatch.setattr(searching, "_AT_ONCE", 37)
    ours, others = hashes(400, 2), np.concatenate([hashes(400, 2)[::2], hashes(50, 3)])
    wanted = compared(ours, others, 48, most)
    assert len(wanted) > len(compared(ours, others, 48, most - 1))
    assert sorted(map(tuple, near(ours, others, 48, threads=threads).tolist())) == sorted(wanted)
    wanted = {(a, b) for a, b in compared(ours, ours, 48, most) if a < b}
    assert sorted(map(tuple, near(ours, ours, 48, threads=threads).tolist())) == sorted(wanted)
    assert len(wanted) >= 0.95 * sum(a < b for a, b in compared(ours, ours, 48))


def test_nothing_is_near_none() -> None:
    none = np.empty((0, 32), np.uint8)
    assert near(none, hashes(4, 0), 8).shape == near(hashes(4, 0), none, 8).shape == (0, 2)


@pytest.mark.parametrize("small", [0, 1 << 10])
def test_too_many_pairs_are_refused(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_SMALL", small)
    monkeypatch.setattr(searching, "_MOST", 4950)
    same = np.repeat(hashes(1, 4), 101, axis=0)
    hundred = same[1:]
    assert len(near(hundred, hundred, 48)) == 4950
    with pytest.raises(MaskstreamError, match="more than 4950 pairs among 101 and 101 frames match"):
        near(same, same, 48)
