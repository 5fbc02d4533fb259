"""Killed workers, killed jobs and SIGTERM: after exit 0 there are the reference bytes, and nothing else."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskstream.preprocess import make_shards

SCRIPT = """
import sys
from multiprocessing import current_process
from maskstream.preprocess import make_shards
current_process()._config["semprefix"] = "/" + sys.argv[4]  # other tests make semaphores too
make_shards("folder", sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), samples_per_shard=3)
"""
SHM = Path("/dev/shm")


@pytest.fixture
def raw(make_video, tmp_path):
    for number in range(15):
        make_video(f"raw/train/{'ab'[number % 2]}/{number:02d}.mp4", 60 + number, width=192, height=128)
    return tmp_path / "raw"


def contents(folder):
    """All files but the records, which hold times."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.name != ".records"
    }


def shared_memory(name):
    return [path.name for path in SHM.iterdir() if name in path.name] if SHM.is_dir() else []


def workers_of(pid):
    """The worker processes of a job."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in children if b"process_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


class Killer:
    """Kills workers of jobs while tars are written, `left` in all, at moments that a seed draws."""

    def __init__(self, folder, left, seed):
        self.folder, self.left, self._rng = folder, left, random.Random(seed)

    def run(self, command, most):
        """Run a job and kill up to `most` of its workers; returns its exit code."""
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
            killed = 0
            while job.poll() is None and killed < most and self.left:
                if not list(self.folder.glob(".*.tar.*.tmp")):
                    time.sleep(0.01)
                    continue
                time.sleep(self._rng.uniform(0, 0.2))
                if workers := workers_of(job.pid):
                    try:
                        os.kill(self._rng.choice(workers), signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    killed, self.left = killed + 1, self.left - 1
                    time.sleep(0.1)
            out = job.communicate()[0]
        assert job.returncode == 0 or "run the same command again" in out, out
        return job.returncode


def check_kills(raw, tmp_path, workers, kills):
    make_shards("folder", raw, tmp_path / "whole", workers=0, samples_per_shard=3)
    whole = contents(tmp_path / "whole/train")
    name, seed = f"kills{os.getpid()}-{workers}-{kills}", 0
    killer = Killer(tmp_path / "none", kills, workers)
    while killer.left:
        out = tmp_path / f"out{seed}"
        killer.folder, seed = out / "train", seed + 1
        command = [sys.executable, "-c", SCRIPT, raw, out, str(workers), name]
        while killer.run(command, most=6):
            pass
        assert contents(out / "train") == whole
        assert not list(out.rglob("*.tmp"))
    assert not shared_memory(name)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 16), (2, 17), (5, 17)])
def test_fifty_killed_workers_leave_nothing(raw, tmp_path, workers, kills):
    check_kills(raw, tmp_path, workers, kills)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["the job", "its group"])
def test_sigterm_ends_like_ctrl_c(raw, tmp_path, to):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "maskstream", "shards", "folder", "--root", raw, "--out", out, "--workers", "2"]
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as job:
        while job.poll() is None and not list((out / "train").glob(".*.tar.*.tmp")):
            time.sleep(0.02)
        start = time.monotonic()
        os.kill(job.pid, signal.SIGTERM) if to == "the job" else os.killpg(job.pid, signal.SIGTERM)
        told = job.communicate()[0]  # ends when every process has closed it
        seconds = time.monotonic() - start
    assert job.returncode == 143
    assert "interrupted; run the same command to continue" in told
    assert "Traceback" not in told
    assert seconds < max(2.0, start - begun), "on a machine that is busy it may take as long as it took to start"
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_a_killed_job_takes_its_workers_along(raw, tmp_path):
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, raw, tmp_path / "out", "2", "killed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as job:
        while job.poll() is None and not list((tmp_path / "out/train").glob(".*.tar.*.tmp")):
            time.sleep(0.02)
        start = time.monotonic()
        job.kill()
        told = job.communicate()[0]
        seconds = time.monotonic() - start
    assert told == ""
    assert seconds < max(2.0, start - begun), "on a machine that is busy it may take as long as it took to start"
