"""Stall attribution: every stage is counted where it happens, and the sentence names what limits."""

import time

import pytest

from maskstream.modalities import MODALITIES
from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.pipelines.stream.stats import STAGES, Stats, limit, shares

SETTINGS = {"clip": VideoClip(frames=4, stride=4, size=32), "patch": 8, "batch_size": 2, "device": "cpu"}


def test_stages_add_up_and_a_wait_takes_no_processor_time():
    one, other = Stats(samples=1, read_bytes=5), Stats(samples=2, bad=1)
    with one.stage("read"):
        time.sleep(0.05)
    with other.stage("read"):
        deadline = time.thread_time() + 0.03
        while time.thread_time() < deadline:
            pass
    slept = one.seconds["read"]
    assert slept >= 0.05
    assert one.cpu_seconds["read"] < 0.5 * slept
    assert other.cpu_seconds["read"] >= 0.03
    both = one.seconds["read"] + other.seconds["read"]
    one.add(other)
    assert one.seconds["read"] == pytest.approx(both)
    got = one.as_dict()
    assert (got["samples"], got["read_bytes"], got["bad"]) == (3, 5, 1)


def test_a_stage_that_fails_is_counted_too():
    stats = Stats()
    with pytest.raises(KeyError), stats.stage("decode"):
        raise KeyError
    assert stats.seconds["decode"] > 0


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_loader_counts_every_stage(split, workers):
    loader = video_loader(split, **SETTINGS, mask=masks.MotionGuided(ratio=0.75), workers=workers, threads=1)
    for _ in loader:
        time.sleep(0.01)
    stats = loader.stats()
    loader.close()
    needed = set(STAGES) - {"copy"}
    assert needed <= set(stats["seconds"])
    assert all(stats["seconds"][name] > 0 for name in needed)
    assert all(stats["cpu_seconds"][name] > 0 for name in ("decode", "convert", "flow", "mask"))
    assert stats["samples"] == 10
    assert stats["threads"] == 1
    assert stats["seconds"]["consumer"] >= 0.01 * (len(loader) - 1)


def made_up(*, threads=4, wait=10.0, consumer=0.0, samples=100, **stages):
    """Stats of 10 s: per stage (wall, processor) seconds."""
    return {
        "samples": samples,
        "read_bytes": 1,
        "bad": 0,
        "threads": threads,
        "seconds": {"wait": wait, "consumer": consumer} | {name: wall for name, (wall, _) in stages.items()},
        "cpu_seconds": {name: cpu for name, (_, cpu) in stages.items()},
    }


@pytest.mark.parametrize(
    ("stats", "says"),
    [
        (made_up(decode=(30, 29), convert=(9, 9)), "Decoding limits: it is 76% of the loader's processor time"),
        (made_up(decode=(12, 11), flow=(27, 26)), "Flow limits"),
        (made_up(decode=(12, 11), mask=(27, 26)), "Drawing masks limits"),
        (made_up(decode=(10, 9), convert=(29, 28)), "Conversion to RGB limits"),
        (made_up(read=(30, 2), decode=(9, 8)), "Reading limits: threads wait for the disk or the network 71%"),
        (made_up(read=(25, 8), decode=(14, 5)), "Other work limits: the loader's threads get a core 33%"),
        (made_up(wait=0.4, consumer=9.6, decode=(9, 8)), "The consumer limits: it waits for data 4%"),
        (made_up(decode=(38, 12)), "Other work limits: the loader's threads get a core 32%"),
        (made_up(threads=2, decode=(19, 18)), "The number of threads limits: 2 for 4 cores"),
        (made_up(decode=(9, 8), collate=(9, 8)), "Joining batches limits: it takes 90% of the time"),
        (made_up(decode=(9, 8), collate=(1, 1), finish=(9, 2)), "Finishing batches limits: it takes 90% of the time"),
        (made_up(decode=(9, 8), collate=(1, 1)), "The threads are idle 78% of the time"),
        (made_up(samples=0), "Nothing was loaded"),
        (made_up(wait=0.0), "Nothing was loaded"),
    ],
)
def test_the_sentence_names_what_limits(stats, says):
    sentence = limit(stats, cores=4, stages=MODALITIES["video"].stages)
    assert says in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("modality", "says"),
    [
        ("audio", "Making spectrograms limits: it is 75%"),
        ("audiovisual", "Conversion to RGB and spectrograms limits"),
        ("points", "Augmenting limits"),
        ("mesh", "Building graphs limits"),
        (None, "Conversion limits"),
    ],
)
def test_a_stage_is_called_what_it_is_for_the_modality(modality, says):
    stages = None if modality is None else MODALITIES[modality].stages
    sentence = limit(made_up(decode=(10, 9), convert=(29, 27)), cores=4, stages=stages)
    assert says in sentence
    assert "profile train" not in sentence


def test_a_stage_of_which_nothing_is_known_is_shown_too():
    rows = shares(made_up(decode=(30, 20), dream=(10, 1)))
    assert rows["dream"]["share"] == 0.25


def test_shares_are_of_the_threads_and_of_the_consumer():
    rows = shares(made_up(decode=(30, 20), read=(10, 1), wait=8.0, consumer=2.0))
    assert rows["decode"] == {"wall_ms": 300, "cpu_ms": 200, "share": 0.75}
    assert rows["read"]["share"] == 0.25
    assert (rows["wait"]["share"], rows["consumer"]["share"]) == (0.8, 0.2)
    assert list(rows) == ["read", "decode", "wait", "consumer"]
