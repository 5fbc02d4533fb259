"""Real jobs while something is missing: no outage becomes a reject, and the same command goes on to the same bytes."""

import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest

SCRIPT = """
import resource, sys
from pathlib import Path
from maskstream.preprocess import make_shards
from maskstream.preprocess.executors.base import Finished
from maskstream.shards.errors import OutageError


class Poor:
    # an executor in this process, whose limits fall before the first task and rise after the last
    def __init__(self, limit, amount):
        self.limit, self.amount = limit, amount

    def run(self, work, tasks):
        before = resource.getrlimit(self.limit)
        resource.setrlimit(self.limit, (self.amount(), before[1]))
        try:
            done = [Finished(task, work(task, str)) for task in tasks]
        finally:
            resource.setrlimit(self.limit, before)
        yield from done


def memory(mib):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize() + (mib << 20)


def descriptors(free):
    return len(list(Path("/proc/self/fd").iterdir())) - 1 + free


raw, out, kind, amount = sys.argv[1:]
limits = {"memory": (resource.RLIMIT_AS, memory), "descriptors": (resource.RLIMIT_NOFILE, descriptors)}
import av, webdataset.writer  # what a task imports
limit, of = limits[kind]
try:
    make_shards("folder", raw, out, executor=Poor(limit, lambda: of(int(amount))), pauses_s=(0,))
except OutageError as error:
    sys.exit(f"outage: {error}")
"""


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".records" not in path.parts
    }


def rejects(split):
    return pq.read_table(split / "rejects.parquet").to_pylist()


JOB = """
import sys
from maskstream.preprocess import make_shards
from maskstream.shards.errors import MaskstreamError

if __name__ == "__main__":
    raw, out, workers = sys.argv[1:]
    try:
        report = make_shards("folder", raw, out, workers=int(workers), samples_per_shard=3, pauses_s=(0, 0))
    except MaskstreamError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print({split.state for split in report.splits.values()})
"""


def under(raw, out, kind, amount):
    command = [sys.executable, "-c", SCRIPT, str(raw), str(out), kind, str(amount)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with one good video of large frames."""
    import av

    path = tmp_path_factory.mktemp("large") / "raw/a/large.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        stream.codec_context.thread_count = 1
        frame = av.VideoFrame(7680, 4320, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([100]) * plane.buffer_size)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path.parent.parent


def test_the_root_is_away_at_ten_moments(make_video, tmp_path):
    """The folder of the raw data is renamed while the job runs, at a random moment, until the job has ended."""
    for number in range(12):
        make_video(f"raw/train/{'ab'[number % 2]}/{number}.mp4", 30, width=320, height=256)
    (tmp_path / "job.py").write_text(JOB)
    raw, aside = tmp_path / "raw", tmp_path / "aside"

    def job(out):
        command = [sys.executable, str(tmp_path / "job.py"), str(raw), str(tmp_path / out), "2"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = job("whole")
    begun = first_written(tmp_path / "whole", whole)
    assert whole.wait() == 0, whole.stderr.read()
    length_s = time.monotonic() - begun
    rng = random.Random(0)
    ends = Counter()
    for trial in range(10):
        running = job("out")
        if trial:
            first_written(tmp_path / "out", running)
        time.sleep(rng.uniform(0, 1.1 * length_s))
        raw.rename(aside)
        _, errors = running.communicate(timeout=300)
        aside.rename(raw)
        ends[errors.partition(":")[0] or "finished"] += 1
        if running.returncode == 0:
            assert contents(tmp_path / "out") == contents(tmp_path / "whole")
        else:
            assert errors.startswith(("OutageError: ", "DatasetError: folder: there is no folder")), errors
            assert not (tmp_path / "out/train/dataset.json").exists()
        again = job("out")
        _, errors = again.communicate(timeout=300)
        assert again.returncode == 0, errors
        assert contents(tmp_path / "out") == contents(tmp_path / "whole"), trial
        assert rejects(tmp_path / "out/train") == []
        shutil.rmtree(tmp_path / "out")
    print(dict(ends))
    assert ends["OutageError"] >= 3


def first_written(out, process):
    """Wait until the job has begun to write a shard; the time."""
    while process.poll() is None and not list(out.glob("train/.*.tar.*.tmp")):
        time.sleep(0.005)
    return time.monotonic()


def test_a_limit_of_memory_is_no_damage(large, tmp_path):
    """FFmpeg says "Invalid data found" where no memory was left."""
    assert under(large, tmp_path / "whole", "memory", 1 << 16).returncode == 0
    outages = 0
    for room in (60, 140):
        ended = under(large, tmp_path / "out", "memory", room)
        assert ended.returncode == 0 or "too little left of its address space" in ended.stderr, ended.stderr
        outages += ended.returncode != 0
        assert ended.returncode or contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert outages
    assert under(large, tmp_path / "out", "memory", 1 << 16).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert rejects(tmp_path / "out/train") == []


def test_a_limit_of_open_files_is_no_damage(make_video, tmp_path):
    raw = make_video("raw/a/clip.mp4", 5).parent.parent
    assert under(raw, tmp_path / "whole", "descriptors", 100).returncode == 0
    outages = 0
    for free in (1, 4):
        ended = under(raw, tmp_path / "out", "descriptors", free)
        outages += "outage: " in ended.stderr
        assert ended.returncode != 0 or contents(tmp_path / "out") == contents(tmp_path / "whole"), free
    assert outages
    assert under(raw, tmp_path / "out", "descriptors", 100).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
