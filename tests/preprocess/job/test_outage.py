"""Real jobs while something is missing: no outage becomes a reject, and the same command goes on to the same bytes."""

import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from maskstream.preprocess import DATASETS, PROFILES, make_shards
from maskstream.preprocess.executors.base import Finished
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.sample import Reject
from maskstream.shards.progress import Progress

from ... import flash_and_beep

KINDS = ("folder", "audio-folder", "audiovisual-folder", "image-folder", "points-folder", "mesh-folder")
FAST = replace(PROFILES["train"], preset="ultrafast")

SCRIPT = """
import resource, sys
from pathlib import Path
from maskstream.preprocess import make_shards
from maskstream.preprocess.executors.base import Finished
from maskstream.shards.progress import Progress
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
import av  # what a task imports
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


def job(raw, out, workers=0, progress=None):
    """Runs the job; returns "finished", or the words of the error that ended it."""
    made = {"profile": FAST, "samples_per_shard": 3, "pauses_s": (0.02, 0.04)}
    try:
        make_shards("folder", raw, out, workers=workers, progress=progress, **made)
    except (OutageError, DatasetError) as error:
        return f"{type(error).__name__}: {error}"
    return "finished"


class Begins(Progress):
    """Begins threads when `n_sources` are encoded."""

    def __init__(self, n_sources, threads):
        self.left, self.threads = n_sources, threads

    def phase(self, name, total, done=0, unit="sources"):
        self.advance(0)

    def advance(self, units):
        self.left -= units
        if self.left <= 0 and self.threads:
            for thread in self.threads:
                thread.start()
            self.threads = ()


def test_the_root_is_away_at_ten_moments(make_video, tmp_path):
    """The folder of the raw data is renamed at a random moment of the job, and back at its end or before."""
    for number in range(12):
        make_video(f"raw/train/{'ab'[number % 2]}/{number}.mp4", 30, width=160, height=128)
    raw, aside, out = tmp_path / "raw", tmp_path / "aside", tmp_path / "out"
    assert job(raw, tmp_path / "whole") == "finished"
    whole = contents(tmp_path / "whole")
    rng = random.Random(0)
    ends = Counter()
    for trial in range(10):
        moment_s, gone_s, comes_back = rng.uniform(0, 0.1), rng.uniform(0, 0.3), trial % 2 == 1

        def moved(moment_s=moment_s, gone_s=gone_s, comes_back=comes_back):
            time.sleep(moment_s)
            raw.rename(aside)
            if comes_back:
                time.sleep(gone_s)
                aside.rename(raw)

        mover = Thread(target=moved)
        ended = job(raw, out, progress=Begins(3 * rng.randrange(4), (mover,)))
        mover.join()
        if not comes_back:
            aside.rename(raw)
        ends[ended.partition(":")[0]] += 1
        if ended == "finished":
            assert contents(out) == whole, trial
        else:
            assert ended.startswith("OutageError: the source "), ended
            assert "run the same command again" in ended
            assert not (out / "train/dataset.json").exists()
        assert job(raw, out) == "finished", trial
        assert contents(out) == whole, trial
        assert rejects(out / "train") == []
        shutil.rmtree(out)
    assert ends["OutageError"], ends


@pytest.mark.slow
def test_the_root_is_away_while_processes_work(make_video, tmp_path):
    for number in range(24):
        make_video(f"raw/train/{'ab'[number % 2]}/{number}.mp4", 30, width=160, height=120)
    assert job(tmp_path / "raw", tmp_path / "whole") == "finished"
    aside, records = tmp_path / "aside", tmp_path / "out/train/.records"

    def take_away():
        while not list(records.glob("*.record")):
            time.sleep(0.001)
        (tmp_path / "raw").rename(aside)

    thread = Thread(target=take_away)
    thread.start()
    ended = job(tmp_path / "raw", tmp_path / "out", workers=1)
    thread.join()
    aside.rename(tmp_path / "raw")
    assert ended.startswith("OutageError: the source 'train/"), ended
    assert job(tmp_path / "raw", tmp_path / "out") == "finished"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_limit_of_memory_is_no_damage(large, tmp_path):
    """FFmpeg says "Invalid data found" where no memory was left."""
    assert under(large, tmp_path / "whole", "memory", 1 << 16).returncode == 0
    outages = 0
    for room in (15, 30, 60, 140):
        ended = under(large, tmp_path / "out", "memory", room)
        assert ended.returncode == 0 or "running out of address space" in ended.stderr, ended.stderr
        outages += ended.returncode != 0
        assert ended.returncode or contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert outages
    assert under(large, tmp_path / "out", "memory", 1 << 16).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert rejects(tmp_path / "out/train") == []


@pytest.mark.slow
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


def write_raw(kind, root, make_video):
    """Two sources of a kind below `root`."""
    rng = np.random.default_rng(0)
    for number, label in enumerate("ab"):
        stem = root / label / str(number)
        stem.parent.mkdir(parents=True)
        if kind == "audiovisual-folder":
            flash_and_beep.write(stem.with_suffix(".mp4"), (5,), frames=20)
        elif kind == "folder":
            make_video(f"raw/{label}/{number}.mp4", 5)
        elif kind == "audio-folder":
            sf.write(stem.with_suffix(".wav"), rng.uniform(-0.5, 0.5, 8000), 16000)
        elif kind == "image-folder":
            cv2.imwrite(str(stem.with_suffix(".png")), rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        elif kind == "points-folder":
            np.save(stem.with_suffix(".npy"), rng.normal(size=(50, 3)))
        else:
            stem.with_suffix(".obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")


@dataclass(frozen=True)
class Flickers:
    """An encoder whose root is away while it reads for the first time."""

    encoder: Any
    root: Path
    seen: list = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def encode(self, source):
        if self.seen:
            return self.encoder.encode(source)
        aside = self.root.rename(self.root.with_name("aside"))
        try:
            return self.encoder.encode(source)
        except RejectError as error:
            self.seen.append(error)
            raise
        finally:
            aside.rename(self.root)


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_that_flickers_costs_no_source_of_any_modality(make_video, tmp_path, kind):
    raw = tmp_path / "raw"
    write_raw(kind, raw, make_video)
    made = make_shards(kind, raw, tmp_path / "whole", workers=0).splits["train"]
    assert made.counts["samples"] == 2
    seen = []

    def flickers(root):
        found = DATASETS[kind](root)
        return replace(found, encoder=Flickers(found.encoder, root, seen))

    make_shards(flickers, raw, tmp_path / "out", workers=0, pauses_s=())
    assert len(seen) == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class Away:
    """An executor in this process, while whose tasks run the raw data are away."""

    def __init__(self, root):
        self.root = root

    def run(self, work, tasks):
        aside = self.root.rename(self.root.with_name("aside"))
        try:
            done = [Finished(task, work(task, str)) for task in tasks]
        finally:
            aside.rename(self.root)
        yield from done


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_that_is_away_ends_the_run_of_any_modality(make_video, tmp_path, kind):
    raw = tmp_path / "raw"
    write_raw(kind, raw, make_video)
    with pytest.raises(OutageError, match="No such file or directory"):
        make_shards(kind, raw, tmp_path / "out", executor=Away(raw), pauses_s=(0,))
    assert not (tmp_path / "out/train/dataset.json").exists()
    assert make_shards(kind, raw, tmp_path / "out", workers=0).splits["train"].counts["samples"] == 2


def test_files_that_are_missing_for_a_moment_are_not_missing(make_video, tmp_path):
    make_video("raw/x.mp4", 4)
    make_video("raw/y.mp4", 4)
    (tmp_path / "raw/videos.csv").write_text("path\nx.mp4\ny.mp4\n")
    listed = []

    def flickers(root):
        listed.append(root)
        found = DATASETS["folder"](root)
        if len(listed) > 1:
            return found
        gone = Reject(source="y.mp4", stage="missing", reason="there is no file y.mp4")
        return replace(found, splits={"train": found.splits["train"][:1]}, missing={"train": [gone]})

    with pytest.raises(OutageError, match=r"the files below .* change each time they are listed"):
        make_shards(flickers, tmp_path / "raw", tmp_path / "out", workers=0)
    assert make_shards(flickers, tmp_path / "raw", tmp_path / "out", workers=0).splits["train"].counts["samples"] == 2


def test_a_folder_that_cannot_be_listed_is_no_empty_one(make_video, tmp_path, monkeypatch):
    make_video("raw/a/x.mp4", 4)
    make_video("raw/b/y.mp4", 4)
    scandir = os.scandir

    def failing(path):
        if Path(path).name == "b":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OutageError, match=r"b cannot be listed \(Input/output error\)"):
        make_shards("folder", tmp_path / "raw", tmp_path / "out", workers=0)
