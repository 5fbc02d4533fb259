"""What is alive when a script ends: no thread of a library, which could abort the process (docs/robustness.md)."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, threading
from maskstream.pipelines import VideoClip, video_loader

def of_libraries():
    return set(os.listdir("/proc/self/task")) - {str(one.native_id) for one in threading.enumerate()}

before = of_libraries()
loader = video_loader(sys.argv[1], clip=VideoClip(frames=2, stride=1, size=32), batch_size=2, threads=2, device="cpu")
batches = loader.repeat()
for _ in range(3):
    next(batches)
daemons = [one.name for one in threading.enumerate() if one.daemon]
print(len(of_libraries() - before), daemons)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_loader_leaves_no_thread_but_those_that_the_interpreter_joins(split):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, split], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "0 []\n")
