"""In a process of its own: what other tests have left of its memory would be taken for memory that is kept."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, torch
from maskstream.train.core.process import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(40 << 18)  # glibc, left alone, takes it from the system and gives it back
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for device in ("cuda", "cpu"):
    with keep_memory(torch.device(device)):
        within = [faults() for _ in range(4)]
    print(json.dumps([within, [faults() for _ in range(2)]]))
"""


@pytest.mark.slow
def test_on_the_cpu_a_tensor_takes_the_memory_of_the_one_before_until_the_context_ends():
    """By the page faults of making a tensor and freeing it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, check=True)
    (on_cuda, after_cuda), (on_cpu, after_cpu) = map(json.loads, done.stdout.splitlines())
    assert min(on_cpu) < min(after_cpu) / 4  # another block may take a part of the memory of one
    assert min(on_cuda) > min(after_cuda) / 2
