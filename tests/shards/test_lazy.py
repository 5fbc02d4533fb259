"""Imports that are not looked at by the collection of garbage."""

import gc
import sys

import pytest

from maskstream.shards.lazy import importing


@pytest.fixture
def collects():
    """The collection as it is in a new process."""
    gc.unfreeze()
    gc.enable()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="generations are other ones there")
def test_what_is_imported_is_old_at_once_and_nothing_is_collected_meanwhile(collects):
    before = sum(one["collections"] for one in gc.get_stats())
    with importing():
        made = [[] for _ in range(100_000)]
        assert sum(one["collections"] for one in gc.get_stats()) == before
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    old = {id(one) for one in gc.get_objects(generation=2)}
    assert {id(made), id(made[-1])} <= old


def test_garbage_of_before_and_within_is_collected_later(collects):
    class Node:
        living = 0

        def __init__(self):
            self.self = self
            Node.living += 1

        def __del__(self):
            Node.living -= 1

    gc.collect()
    Node()
    with importing():
        Node()
    gc.collect()
    assert Node.living == 0


def test_what_a_process_froze_or_disabled_stays_so(collects):
    gc.freeze()
    frozen = gc.get_freeze_count()
    with importing():
        pass
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen > 0
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()


def test_the_collection_goes_on_after_an_error(collects):
    with pytest.raises(ModuleNotFoundError), importing():
        raise ModuleNotFoundError
    assert gc.isenabled()
