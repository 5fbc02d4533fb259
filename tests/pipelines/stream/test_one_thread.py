"""Loader threads compute alone, and nobody else notices."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from maskstream.pipelines.stream.one_thread import compute_alone
from maskstream.pipelines.stream.place import START
from maskstream.pipelines.stream.produce import BatchMaker, BatchPlan, batches_from_threads
from maskstream.pipelines.stream.stats import Stats


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
    """A sampler whose samples are the number of torch's threads where they are made."""

    seed, needs_progress = 0, False

    def make(self, index, epoch, place):
        made = type("Made", (), {"stats": Stats(samples=1), "threads": torch.get_num_threads()})
        return made()

    def collate(self, samples):
        return [sample.threads for sample in samples]


def test_a_loader_s_threads_do(two_threads):
    maker = BatchMaker(sampler=Threads(), order=None)
    plan = BatchPlan(
        number=(0, 0),
        indexes=np.arange(4),
        epochs=np.zeros(4, np.int64),
        places=[START] * 4,
        weight=np.ones(4, np.float32),
    )
    ((made, _),) = batches_from_threads(maker, [plan], threads=2, prefetch=1)
    assert made == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2
