"""What is alive when a script ends: no thread of a library, which could abort the process (docs/robustness.md)."""

import gc
import os
import subprocess
import sys
import threading

import pytest

from maskstream.pipelines import image_loader
from maskstream.pipelines.stream.produce import BatchMaker

from ..every_modality import write_split

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_loader_leaves_no_thread_but_those_that_the_interpreter_joins(split):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, split], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "0 []\n")


def test_a_thread_that_collects_an_iteration_of_its_own_does_not_wait_for_itself(tmp_path, monkeypatch):
    """One that is garbage within a cycle ends in whatever thread collects it, also one that makes its rows."""
    fill, filled, dropped = BatchMaker._fill, [], threading.Event()

    def collecting(self, *given):
        filled.append(given)
        if len(filled) > 2:
            dropped.wait(30)
            gc.collect()
        return fill(self, *given)

    monkeypatch.setattr(BatchMaker, "_fill", collecting)
    split = write_split("image", tmp_path)
    loader = image_loader(split, size=32, patch=8, batch_size=2, threads=1, device="cpu")
    gc.disable()
    try:
        cycle = [loader.repeat()]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
        dropped.set()
        again = threading.Thread(target=lambda: next(loader.repeat()), daemon=True)
        again.start()
        again.join(60)
        assert not again.is_alive()
        assert len(filled) > 2
    finally:
        gc.enable()
