import os

import pytest
import torch

from maskstream.pipelines.stream.topology import default_threads
from maskstream.train.core.process import compute_threads


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_on_the_cpu_one_core_is_left_to_the_loader_and_the_setting_comes_back(four_cores):
    with compute_threads(torch.device("cpu")) as threads:
        assert threads == torch.get_num_threads() == 3
    assert torch.get_num_threads() == 4


def test_the_threads_of_a_loader_are_those_of_its_rank(four_cores, monkeypatch):
    assert [default_threads(workers) for workers in (0, 1, 3)] == [4, 4, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert [default_threads(workers) for workers in (0, 1, 3)] == [2, 2, 1]


def test_fewer_threads_stay_fewer_and_one_core_is_enough(four_cores, monkeypatch):
    torch.set_num_threads(2)
    with compute_threads(torch.device("cpu")) as threads:
        assert threads == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    with compute_threads(torch.device("cpu")) as threads:
        assert threads == 1


def test_on_a_gpu_and_where_the_environment_says_nothing_changes(four_cores, monkeypatch):
    with compute_threads(torch.device("cuda")) as threads:
        assert threads == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with compute_threads(torch.device("cpu")) as threads:
        assert threads == 4
