"""A small split of real shards: moving textures, encoded in the `train` profile, two odd-sized shards."""

import os
import time

import numpy as np
import pytest
import torch
from hypothesis import settings

from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member
from maskstream.shards.members.video import video_member
from maskstream.shards.stores import client, remote_output

from .s3_double import s3_double
from .splits import write_samples
from .videos import write_frames

SHARD_SIZES = (5, 2, 4)

torch.set_num_threads(1)  # tests run side by side, a process for each core

settings.register_profile("busy", deadline=None, derandomize=True)  # a machine that is busy is no failure
settings.load_profile("busy")


def write_moving_texture(path, *, seed, frames, width=96, height=64):
    """A blocky texture that moves by (2, 1) pixels a frame."""
    texture = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    texture = np.repeat(np.repeat(texture, 8, 0), 8, 1)
    pictures = (np.roll(texture, (i, 2 * i), (0, 1))[:height, :width] for i in range(frames))
    return write_frames(path, pictures, options={"qp": "18", "preset": "veryfast"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Hides CUDA devices from a test that is not marked `gpu`, and from its processes: "auto" is the CPU everywhere."""
    if item.get_closest_marker("gpu"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Skips what would begin after TESTS_END, in seconds since 1970, so that a run ends in time on a slow machine."""
    if time.time() > float(os.environ.get("TESTS_END", "inf")):
        pytest.skip("the time of this run is over (TESTS_END)")


@pytest.fixture(autouse=True)
def ordinary_priority():
    """SVT-AV1 makes the thread that opens its encoder a real-time one, as root, and leaves it so."""
    yield
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """An empty folder that is the cache of this test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MASKSTREAM_CACHE", str(folder))
    return folder


@pytest.fixture
def double(monkeypatch):
    """A server of S3 in this process, to which `s3://bucket` leads, and which is asked twice at most."""
    monkeypatch.setattr(remote_output, "_conditional", {})
    monkeypatch.setattr(client, "MAX_RETRIES", 1)
    with s3_double() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def split(tmp_path_factory):
    """The folder of a finished split of 11 clips of 40 to 50 frames."""
    raw, samples = tmp_path_factory.mktemp("raw"), []
    for number in range(sum(SHARD_SIZES)):
        path = write_moving_texture(raw / f"{number}.mp4", seed=number, frames=40 + number)
        samples.append(clip_sample(f"clip{number}", encode_video(path, PROFILES["train"]), path.name, number % 3))
    out = tmp_path_factory.mktemp("split")
    return write_samples(out, samples, "video", sizes=SHARD_SIZES, label_names=("a", "b", "c"))


def clip_sample(key, video, source, label):
    members = {"mp4": video_member(video.data, video.index), "json": json_member(video.meta)}
    return Sample(key=key, members=members, source=source, label=label)


UNEVEN_SIZES = (7, 2, 11, 1, 9, 13, 10)


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """The folder of a split of 53 samples in seven shards of odd sizes, made of four videos under many keys."""
    raw, names = tmp_path_factory.mktemp("raw"), tuple(f"class{i}" for i in range(sum(UNEVEN_SIZES)))
    videos = [
        encode_video(write_moving_texture(raw / f"{i}.mp4", seed=50 + i, frames=24 + 5 * i), PROFILES["train"])
        for i in range(4)
    ]
    samples = [clip_sample(f"u{n}", videos[n % len(videos)], f"{n}", n) for n in range(len(names))]
    out = tmp_path_factory.mktemp("uneven")
    return write_samples(out, samples, "video", sizes=UNEVEN_SIZES, dataset="u", label_names=names)
