"""Indexing that is killed goes on where it was, to the same bytes, and reads no finished tar again."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from maskstream.preprocess import index_tars
from maskstream.preprocess.encode.limits import Limits
from maskstream.shards.errors import DatasetError, OutageError, ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.records import RECORDS
from maskstream.shards.format.verify import verify

from ...videos import write_frames
from .foreign_tars import rejects, write_tar

SCRIPT = """
import sys
from maskstream.preprocess import index_tars
index_tars([sys.argv[1]], workers=2)
"""
N_TARS = 12


def video(path, seed):
    """Noise, 40 frames of it."""
    rng = np.random.default_rng(seed)
    frames = (rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40))
    write_frames(path, frames, rate=25, options={"g": "8", "preset": "ultrafast"})
    return path.read_bytes()


@pytest.fixture
def tars(tmp_path):
    """The folder of tars of three videos each, labels of both kinds, damage, and a key that stands in two tars."""
    data = [video(tmp_path / f"{seed}.mp4", seed) for seed in range(3)]
    folder = tmp_path / "raw/tars"
    folder.mkdir(parents=True)
    for n in range(N_TARS):
        members = [(f"{n}-{i}.mp4", data[i]) for i in range(3)]
        members += [(f"{n}-3.mp4", data[0][: 900 + n]), ("same.mp4", data[1]), ("same.cls", b"wave" if n % 2 else b"4")]
        write_tar(folder / f"t-{n:03d}.tar", members)
    return folder


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def recorded(folder):
    """The tars that have records, and when their files of packets were written, in ns."""
    names = [path.name.removesuffix(".record") for path in (folder / RECORDS).glob("*.record")]
    return {name: (folder / name).with_suffix(".packets").stat().st_mtime_ns for name in names}


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 1)])
def test_killed_at_random_points(tars, tmp_path, seed):
    rng = random.Random(seed)
    whole = shutil.copytree(tars, tmp_path / "whole/tars")
    index_tars([whole], workers=0)
    before: dict[str, int] = {}
    kills = 0
    while kills < 3:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, tars], start_new_session=True)
        wanted = 0 if kills == 0 else len(before) + 1
        while process.poll() is None and (len(recorded(tars)) < wanted or not (tars / RECORDS).exists()):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        assert process.poll() is None, "it was to be killed before its end"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        now = recorded(tars)
        assert now.items() >= before.items()
        before = now
    assert 2 <= len(before) < N_TARS
    assert not (tars / "dataset.json").exists()
    (tars / ".t-000.packets.0a0b0c0d.tmp").write_bytes(b"half")
    index_tars([tars], workers=0)
    assert {name: (tars / name).with_suffix(".packets").stat().st_mtime_ns for name in before} == before
    assert contents(tars) == contents(whole)
    assert verify(tars, decode=True).ok
    assert Manifest.load(tars).info["counts"]["samples"] == 3 * N_TARS + 1
    assert "its key also occurs in t-000.tar" in rejects(tars)["t-011.tar:same"]


class Stopped:
    """An executor in this process that is stopped when `n` tars are indexed."""

    def __init__(self, n):
        self.n = n

    def run(self, work, tasks):
        from maskstream.preprocess.executors.base import Finished

        for done, task in enumerate(tasks):
            if done == self.n:
                raise KeyboardInterrupt
            yield Finished(task, work(task, str))


def test_a_tar_that_changed_since_is_read_again(tars):
    with pytest.raises(KeyboardInterrupt):
        index_tars([tars], executor=Stopped(3))
    before = recorded(tars)
    assert len(before) == 3
    write_tar(tars / "t-001.tar", [("new.mp4", video(tars.parent / "new.mp4", 9))])
    (tars / "t-002.sums").unlink()
    index_tars([tars], workers=0)
    again = {name for name in before if (tars / name).with_suffix(".packets").stat().st_mtime_ns != before[name]}
    assert again == {"t-001.tar", "t-002.tar"}
    assert verify(tars).ok
    manifest = Manifest.load(tars)
    assert "new" in manifest.keys(range(len(manifest)))


def test_a_stopped_run_is_not_finished_with_other_settings(tars):
    with pytest.raises(KeyboardInterrupt):
        index_tars([tars], executor=Stopped(1))
    with pytest.raises(ResumeError, match="fast: saved False, here True"):
        index_tars([tars], fast=True, workers=0)
    shutil.rmtree(tars / RECORDS)
    index_tars([tars], fast=True, workers=0)
    assert not (tars / RECORDS).exists()


class Away:
    """An executor in this process, without whose tar `name` the job begins; it comes back at the first pause."""

    def __init__(self, path, comes_back):
        self.path, self.comes_back = path, comes_back
        self.notes = []

    def run(self, work, tasks):
        from maskstream.preprocess.executors.base import Finished

        elsewhere = self.path.rename(self.path.with_suffix(".away"))

        def report(note):
            if "retrying" in str(note):
                self.notes.append(note)
                if self.comes_back:
                    elsewhere.rename(self.path)

        try:
            for task in tasks:
                yield Finished(task, work(task, report))
        finally:
            if elsewhere.exists():
                elsewhere.rename(self.path)


def test_a_tar_that_is_away_for_a_moment_is_indexed_and_one_that_stays_away_ends_the_run(tars, tmp_path):
    whole = shutil.copytree(tars, tmp_path / "whole/tars")
    index_tars([whole], workers=0)
    stays = Away(tars / "t-005.tar", comes_back=False)
    with pytest.raises(OutageError, match=r"the tar 't-005\.tar' failed 3 times .* run the same command again"):
        index_tars([tars], executor=stays, pauses_s=(0.0, 0.0))
    assert (len(stays.notes), len(recorded(tars))) == (2, 5)
    assert not (tars / "dataset.json").exists()
    returns = Away(tars / "t-005.tar", comes_back=True)
    index_tars([tars], executor=returns, pauses_s=(0.0,))
    assert len(returns.notes) == 1
    assert contents(tars) == contents(whole)


def test_a_sample_that_passes_a_limit_is_no_sample_of_an_index(tars):
    with pytest.raises(DatasetError, match="has frames of 64x48 = 3072 pixels; the limit is 3071"):
        index_tars([tars], workers=0, limits=Limits(frame_pixels=64 * 48 - 1))
