"""Measuring loaders: what is counted, per modality, and that the numbers belong together."""

import numpy as np
import pytest
from rich.console import Console

from maskstream.bench import candidates, difference, measure, show, sweep
from maskstream.modalities import MODALITIES, modality_of
from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.stats import WAITS
from maskstream.shards.format.manifest import Manifest

from ..pipelines.every_modality import write_split

SMALL = {
    "audio": (["clip.seconds=0.32"],),
    "audiovisual": (["frames=4", "size=32", "seconds=0.32"],),
    "image": (["size=32"],),
    "image-text": (["size=32"],),
    "mesh": (["views=2"],),
    "points": (["points=64", "resolution=16"],),
    "pose": (["clip.frames=12"],),
    "text": (["length=32"],),
    "trajectory": (["clip.frames=4", "size=32"],),
    "video": (["frames=4", "size=32"], ["random"]),
}
FEW = {"batch_size": 2, "device": "cpu"}
STAGES = {
    "audio": {"read", "decode", "convert", "mask", "collate", "finish"},
    "audiovisual": {"read", "decode", "convert", "mask", "collate", "finish"},
    "image": {"read", "decode", "convert", "mask", "collate", "finish"},
    "image-text": {"read", "decode", "convert", "mask", "collate", "finish"},
    "mesh": {"read", "convert", "mask", "collate", "finish"},
    "points": {"read", "convert", "mask", "collate", "finish"},
    "pose": {"read", "convert", "mask", "collate", "finish"},
    "text": {"read", "convert", "mask", "collate", "finish"},
    "trajectory": {"read", "decode", "convert", "mask", "collate", "finish"},
    "video": {"read", "decode", "convert", "mask", "collate", "finish"},
}
UNITS = {
    "audio": "sounds",
    "audiovisual": "clips",
    "image": "pictures",
    "image-text": "images",
    "mesh": "meshes",
    "points": "clouds",
    "pose": "clips",
    "text": "texts",
    "trajectory": "walks",
    "video": "clips",
}


@pytest.fixture(scope="module", params=list(MODALITIES))
def kind(request, tmp_path_factory):
    """A modality, the folder of its split, and settings of its loader that cost little."""
    folder = write_split(request.param, tmp_path_factory.mktemp(request.param))
    return request.param, folder, MODALITIES[request.param].chosen(*SMALL[request.param])


def test_every_modality_is_measured_in_its_own_stages_and_they_add_up(kind):
    name, folder, settings = kind
    result = measure(
        modality_of(Manifest.load(folder)), Manifest.load(folder), for_s=60, samples=6, threads=1, data=settings, **FEW
    )
    assert (result["modality"], result["unit"]) == (name, UNITS[name])
    assert 6 <= result["samples"] < 10
    stages = result["stages"]
    assert set(stages) == STAGES[name] | set(WAITS)
    assert sum(row["cpu_ms"] for row in stages.values()) == pytest.approx(result["cpu_ms_per_sample"], abs=0.01)
    assert sum(stages[stage]["wall_ms"] for stage in STAGES[name]) > 0  # one of text may take less than is printed
    for group in (STAGES[name], set(WAITS)):
        assert sum(stages[stage]["share"] for stage in group) == pytest.approx(1, abs=0.001)
    speed = result["samples_per_s"]
    assert speed * result["wall_s"] == pytest.approx(result["samples"], rel=0.01, abs=0.001 * speed)
    assert result["kb_per_sample"] * speed == pytest.approx(result["mb_per_s"] * 1e3, rel=0.01, abs=0.06 * speed)
    assert result["limit"].endswith((".", ")"))
    assert "\n" not in result["limit"]


def test_bytes_are_those_of_the_samples(kind):
    _, folder, settings = kind
    loader = settings.loader(folder, threads=1, steps=100, **FEW)
    for _ in loader:
        pass
    stats = loader.stats()
    result = measure(
        modality_of(Manifest.load(folder)),
        Manifest.load(folder),
        for_s=60,
        samples=2 * len(loader),
        threads=1,
        data=settings,
        **FEW,
    )
    assert result["kb_per_sample"] == pytest.approx(stats["read_bytes"] / stats["samples"] / 1e3, rel=0.5)


def test_what_is_printed_names_the_unit_and_ends_with_what_limits(kind):
    name, folder, settings = kind
    console = Console(record=True, width=100)
    result = measure(
        modality_of(Manifest.load(folder)), Manifest.load(folder), for_s=60, samples=2, threads=1, data=settings, **FEW
    )
    show(MODALITIES[name], result, console)
    text = console.export_text()
    assert f"{result['samples_per_s']:.1f} {UNITS[name]}/s" in text
    assert all(stage in text for stage in STAGES[name])
    assert text.rstrip().endswith(result["limit"])


def test_a_split_of_less_than_a_batch_is_refused(kind):
    _, folder, settings = kind
    with pytest.raises(ValueError, match="has 15 samples, less than a batch of 16; use a smaller batch size"):
        measure(modality_of(Manifest.load(folder)), Manifest.load(folder), for_s=1, data=settings, batch_size=16)


def test_the_difference_of_two_states_is_what_happened_between():
    before = {"samples": 4, "read_bytes": 10, "bad": 0, "threads": 4, "seconds": {"decode": 3, "wait": 10.0}}
    after = {"samples": 9, "read_bytes": 30, "bad": 1, "threads": 4}
    after["seconds"] = {"decode": 8, "wait": 12.0, "read": 1}
    before["cpu_seconds"], after["cpu_seconds"] = {"decode": 2}, {"decode": 6, "read": 1}
    got = difference(after, before)
    assert (got["samples"], got["read_bytes"], got["bad"]) == (5, 20, 1)
    assert got["seconds"] == {"wait": 2.0, "decode": 5, "read": 1}
    assert got["cpu_seconds"] == {"decode": 4, "read": 1}


def test_a_sweep_tries_the_default_too_and_puts_the_fastest_first(split):
    assert (0, 8) in candidates(8)
    assert all(workers <= cores and threads >= 1 for cores in range(1, 70) for workers, threads in candidates(cores))
    clip = VideoClip(frames=4, stride=4, size=32)
    settings = VideoData(clip=clip, patch=8, mask=masks.Tube(ratio=0.75))
    result = sweep(
        modality_of(Manifest.load(split)), Manifest.load(split), for_s=0.02, cores=1, rounds=2, data=settings, **FEW
    )
    rows = result["tried"]
    assert result["unit"] == "clips"
    assert result["best"] == rows[0]
    assert {(row["workers"], row["threads"]) for row in rows} == set(candidates(1))
    speeds = [row["samples_per_s"] for row in rows]
    assert speeds == sorted(speeds, reverse=True)
    assert all(row["samples_per_s"] == pytest.approx(np.median(row["rounds"]), abs=0.01) for row in rows)
    assert all(len(row["rounds"]) == 2 for row in rows)
    console = Console(record=True, width=100)
    show(modality_of(Manifest.load(split)), result, console)
    best = result["best"]
    assert f"Fastest here: workers={best['workers']}, threads={best['threads']}." in console.export_text()


def test_a_consumer_that_takes_its_time_is_waited_for(split):
    clip = VideoClip(frames=4, stride=4, size=32)
    settings = VideoData(clip=clip, patch=8)
    result = measure(
        modality_of(Manifest.load(split)),
        Manifest.load(split),
        for_s=60,
        samples=6,
        threads=2,
        step_s=0.05,
        data=settings,
        **FEW,
    )
    assert result["stages"]["consumer"]["wall_ms"] >= 16
