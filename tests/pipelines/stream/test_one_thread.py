"""Loader threads compute alone, and nobody else notices."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.order import Order
from maskstream.pipelines.stream.produce import BatchMaker, yield_from_threads
from maskstream.pipelines.stream.produce import Threads as LoaderThreads
from maskstream.pipelines.stream.rng import START
from maskstream.pipelines.stream.sampler import BatchPlan
from maskstream.pipelines.stream.topology import compute_alone
from maskstream.shards.stores.base import UNHEEDED


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_only_the_thread_itself_computes_alone(two_threads):
    def inside():
        compute_alone()
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == 1
    assert torch.get_num_threads() == 2
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


class Threads:
    """A sampler whose labels are the number of torch's threads where rows are filled."""

    seed, needs_progress, needs_torch, together = 0, False, True, 1

    def request(self, wanted):
        return wanted

    def announce(self, request):
        return UNHEEDED

    def allocate(self, requests):
        return torch.zeros(sum(map(len, requests)), dtype=torch.int64)

    def mask(self, request, draft, rows):
        pass

    def fill(self, request, draft, rows, stats):
        draft[rows] = torch.get_num_threads()

    def join(self, draft):
        return Batch(key=["a"] * len(draft), label=draft)


def test_a_loader_s_threads_do(two_threads):
    maker = BatchMaker(sampler=Threads(), order=Order(shard_sizes=(4,), global_batch=4))
    plan = BatchPlan(
        number=(0, 0),
        indexes=np.arange(4),
        epochs=np.zeros(4, np.int64),
        rows=np.arange(4),
        first=START,
        weight=np.ones(4, np.float32),
    )
    (made,) = yield_from_threads(maker, [plan], threads=LoaderThreads.of(2), prefetch=1)
    assert made.batch.label.tolist() == [1, 1, 1, 1]
    assert made.stats.samples == 4
    assert torch.get_num_threads() == 2
