"""Reading ahead: announced ranges are fetched by threads, and what is read never depends on it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from maskstream.shards.errors import StoreError
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.local import LocalStore
from maskstream.shards.stores.read_ahead import NEAR_BYTES, ReadAhead

WAIT_S = 20


class Slow(LocalStore):
    """A store of files whose byte i is i % 251. Each read waits for `gate`; `most` is how many waited at once."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.gate = threading.Event()
        self.reads: list[Range] = []
        self.most = 0
        self._now = 0
        self._counting = threading.Lock()

    def read(self, name: str, offset: int, size: int) -> bytes:
        with self._counting:
            self.reads.append(Range(name, offset, size))
            self._now += 1
            self.most = max(self.most, self._now)
        assert self.gate.wait(WAIT_S)
        with self._counting:
            self._now -= 1
        if name == "damaged.tar" and offset < 10:
            raise StoreError(f"{name} is damaged")
        return contents(offset, size)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        return [self.read(*one) for one in ranges]

    def is_near(self, one: Range) -> bool:
        return one.name == "near.tar"

    def size(self, name: str) -> int:
        return len(name)

    def names(self, prefix: str = "") -> list[str]:
        return [f"{prefix}.tar"]


def contents(offset: int, size: int) -> bytes:
    return bytes(i % 251 for i in range(offset, offset + size))


def until(condition, what: str = "") -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < WAIT_S, what
        time.sleep(0.001)


@pytest.fixture
def slow() -> Iterator[Slow]:
    store = Slow()
    yield store
    store.gate.set()  # so that the threads of the test end


def far(number: int, size: int = 100) -> list[Range]:
    """Ranges that are too far from each other to be fetched as one."""
    return [Range("a.tar", n * (NEAR_BYTES + 1000), size) for n in range(number)]


def test_announced_ranges_are_fetched_side_by_side_and_once(slow: Slow) -> None:
    store, ranges = ReadAhead(slow, threads=8), far(8)
    announced = store.announce(ranges)
    until(lambda: slow.most == 8)
    slow.gate.set()
    assert store.read_many(ranges) == [contents(one.offset, one.size) for one in ranges]
    assert store.read("a.tar", ranges[3].offset + 10, 20) == contents(ranges[3].offset + 10, 20)
    assert sorted(slow.reads) == ranges
    announced.drop()
    announced.drop()
    assert store.read(*ranges[0]) == contents(0, 100)
    assert len(slow.reads) == 9
    assert store._held_bytes == 0
    assert not store._spans


def test_what_was_not_announced_is_read_as_it_is(slow: Slow) -> None:
    slow.gate.set()
    store = ReadAhead(slow)
    announced = store.announce([Range("a.tar", 1000, 100)])
    wanted = [Range("a.tar", 1000, 100), Range("a.tar", 1050, 100), Range("b.tar", 1000, 100), Range("a.tar", 1099, 1)]
    assert store.read_many(wanted) == [contents(one.offset, one.size) for one in wanted]
    assert sorted(slow.reads) == [wanted[0], wanted[1], wanted[2]]
    assert (store.size("x"), store.names("x")) == (1, ["x.tar"])
    announced.drop()


def test_ranges_near_to_each_other_are_one_fetch(slow: Slow) -> None:
    slow.gate.set()
    store = ReadAhead(slow)
    near = [Range("a.tar", 9000, 10), Range("a.tar", 0, 500), Range("a.tar", 100, 50), Range("b.tar", 600, 10)]
    announced = store.announce([*near, Range("a.tar", 9010 + NEAR_BYTES + 1, 5), Range("a.tar", 5, 0)])
    assert store.read_many(near) == [contents(one.offset, one.size) for one in near]
    until(lambda: len(slow.reads) == 3)
    assert sorted(slow.reads) == [
        Range("a.tar", 0, 9010),
        Range("a.tar", 9010 + NEAR_BYTES + 1, 5),
        Range("b.tar", 600, 10),
    ]
    announced.drop()


def test_memory_is_bounded_and_no_reader_waits_for_a_fetch_that_has_not_begun(slow: Slow) -> None:
    store, ranges = ReadAhead(slow, threads=8, most_bytes=250), far(5)
    announced = [store.announce([one]) for one in ranges]
    until(lambda: slow.most == 2)
    slow.gate.set()
    assert store.read(*ranges[4]) == contents(ranges[4].offset, 100)
    until(lambda: len(slow.reads) == 3)
    time.sleep(0.05)
    assert sorted(slow.reads) == [*ranges[:2], ranges[4]]
    announced[0].drop()
    until(lambda: ranges[2] in slow.reads)
    announced[3].drop()
    announced[1].drop()
    until(lambda: slow.reads.count(ranges[4]) == 2)
    assert ranges[3] not in slow.reads
    assert store._held_bytes == 200


def test_no_more_threads_than_allowed_and_a_long_range_is_left_to_its_reader(slow: Slow) -> None:
    store = ReadAhead(slow, threads=3)
    announced = store.announce([*far(9), Range("long.tar", 0, 1 << 40)])
    until(lambda: slow.most == 3)
    announced.drop()
    slow.gate.set()
    time.sleep(0.05)
    assert len(slow.reads) == slow.most == 3


def test_what_is_near_is_left_to_its_reader(slow: Slow) -> None:
    slow.gate.set()
    store = ReadAhead(slow)
    store.announce([Range("near.tar", 0, 10)]).drop()
    announced = store.announce([Range("near.tar", 0, 10), Range("a.tar", 0, 10)])
    assert store.read("a.tar", 0, 10) == contents(0, 10)
    assert slow.reads == [Range("a.tar", 0, 10)]
    announced.drop()


def test_an_error_is_raised_where_the_range_is_read_and_each_time(slow: Slow) -> None:
    slow.gate.set()
    store = ReadAhead(slow)
    store.announce([Range("damaged.tar", 0, 10), Range("a.tar", 0, 10)])
    assert store.read("a.tar", 0, 10) == contents(0, 10)
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged"):
            store.read("damaged.tar", 0, 10)


def test_damage_is_of_the_ranges_that_hold_it_alone(slow: Slow) -> None:
    """Also where several ranges are one fetch, which fails."""
    slow.gate.set()
    store, ranges = ReadAhead(slow), [Range("damaged.tar", 0, 10), Range("damaged.tar", 20, 10)]
    announced = store.announce(ranges)
    until(lambda: Range("damaged.tar", 0, 30) in slow.reads)
    assert store.read(*ranges[1]) == contents(20, 10)
    assert store.read_many(ranges[1:]) == [contents(20, 10)]
    for read in (lambda: store.read(*ranges[0]), lambda: store.read_many(ranges)):
        with pytest.raises(StoreError, match="is damaged"):
            read()
    announced.drop()


def test_ranges_that_two_batches_read_stay_until_both_dropped_them(slow: Slow) -> None:
    slow.gate.set()
    store, (one,) = ReadAhead(slow), far(1)
    first, second = store.announce([one]), store.announce([one])
    store.read(*one)
    first.drop()
    until(lambda: len(slow.reads) == 2)
    assert store.read(*one) == contents(0, 100)
    assert len(slow.reads) == 2
    second.drop()
    assert store._held_bytes == 0


class Ready(Slow):
    """Never waits, and can be sent to another process."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.set()

    def __reduce__(self):
        return Ready, ()


def test_a_copy_has_announcements_of_its_own() -> None:
    store = ReadAhead(Ready(), threads=2, most_bytes=300)
    store.announce(far(2))
    copy = pickle.loads(pickle.dumps(store))
    assert (copy._threads, copy._most_bytes, copy._held_bytes) == (2, 300, 0)
    assert copy.read("a.tar", 7, 5) == contents(7, 5)
