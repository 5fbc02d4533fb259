import resource

import torch

from maskstream.train.core.process import kept_memory


def faults():
    """The page faults of making and freeing a tensor that glibc, left alone, takes from the system and gives back."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(40 << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_on_the_cpu_a_tensor_takes_the_memory_of_the_one_before_until_the_context_ends():
    with kept_memory(torch.device("cpu")):
        kept = min(faults() for _ in range(4))  # another block may take a part of the memory of one
    assert kept < min(faults(), faults()) / 4


def test_on_a_gpu_nothing_changes():
    with kept_memory(torch.device("cuda")):
        assert faults() < 2 * faults()
