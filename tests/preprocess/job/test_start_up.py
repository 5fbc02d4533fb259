"""Processes that encode start quickly: they import no torch unless sounds need it."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "webdataset", "numba", "scipy", "soxr"}
"""Packages that take a processor a second or more in all to import, or that only some encoders need."""
SCRIPT = """
import os, sys
from maskstream.preprocess import make_shards
if __name__ == "__main__":
    make_shards("folder", sys.argv[1], sys.argv[2], profile=None, workers=int(sys.argv[3]))
    print(*sys.modules, flush=True)
    os._exit(0)  # pyarrow's threads may abort the end of a short process
"""


def test_a_worker_imports_no_datasets_and_no_encoders():
    script = "import sys, maskstream.preprocess.executors.local; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[2] for name in done.stdout.split() if name.startswith("maskstream.preprocess.")}
    assert rooms == {"executors"}


@pytest.mark.slow
def test_shards_of_videos_are_made_without_torch(make_video, tmp_path):
    make_video("raw/train/a/one.mp4", 12)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for workers in (0, 1):  # in this process, where all that tasks import is seen, and as the driver of another
        command = [sys.executable, script, tmp_path / "raw", tmp_path / f"out{workers}", str(workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not HEAVY & set(done.stdout.split())
        assert "av" in done.stdout.split()
