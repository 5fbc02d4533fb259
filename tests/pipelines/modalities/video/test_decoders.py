"""The choice of a decoder on a CUDA device: arithmetic that the log prints. No card is here, so its name is given."""

import logging

import pytest
import torch
import torch.distributed as dist

from maskstream.pipelines import VideoData, mix, video_loader
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video import decoders, packing
from maskstream.pipelines.modalities.video.decoders import (
    check_agreement,
    choose_decoder,
    count_dali_threads,
    count_engines,
)
from maskstream.pipelines.modalities.video.hardware import HardwareFinish
from maskstream.pipelines.modalities.video.yuv import PlanesFinish
from maskstream.pipelines.stream import topology
from maskstream.pipelines.stream.sampler import Composed, Unchanged

from .packed_videos import CLIP, CPU, VP9, write_split
from .test_dali import DisOfBatch

CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("h264"), "libx264", {"preset": "veryfast"}, "train")


@pytest.fixture(scope="module")
def vp9(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("vp9"), "libvpx-vp9", VP9, "copy")


@pytest.fixture
def card(monkeypatch):
    """Pretends a card, and how many cores a rank has."""

    def given(name, cores=16):
        monkeypatch.setattr(decoders, "name_card", lambda device: name)
        monkeypatch.setattr(decoders, "cores_of_rank", lambda: cores)
        monkeypatch.setattr(packing, "missing_libraries", list)

    return given


@pytest.mark.parametrize(
    ("name", "engines"),
    [
        ("NVIDIA H100 80GB HBM3", 7),
        ("NVIDIA H200", 7),
        ("NVIDIA A100-SXM4-80GB", 5),
        ("NVIDIA L40S", 3),
        ("NVIDIA L4", 4),
        ("Tesla T4", 2),
        ("NVIDIA GeForce RTX 4090", None),
        ("", None),
    ],
)
def test_engines_are_those_of_the_cards_name(card, name, engines):
    card(name)
    assert count_engines(CUDA) == engines
    assert count_dali_threads(CUDA) == 2 * (engines or 4), "whatever the number of workers"
    assert count_dali_threads(CPU) == 16


def test_the_ranks_of_a_node_share_its_cores(monkeypatch):
    monkeypatch.setattr(topology, "cores", lambda: 224)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert topology.cores_of_rank() == 28
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert topology.cores_of_rank() == 224


@pytest.mark.parametrize(
    ("name", "cores", "workers", "unsuited", "chosen"),
    [
        ("NVIDIA H100", 16, 8, "", "cpu"),
        ("NVIDIA H100", 5, 5, "", "dali"),
        ("NVIDIA H100", 3, 0, "", "dali"),
        ("NVIDIA H100", 16, 0, "", "cpu"),
        ("NVIDIA H100", 3, 0, "libnvcuvid.so.1 cannot be loaded", "cpu"),
        ("NVIDIA H100", 6, 6, "", "cpu"),
        ("Tesla T4", 1, 0, "", "dali"),
        ("Tesla T4", 2, 0, "", "cpu"),
        ("A card", 1, 0, "", "cpu"),
    ],
)
def test_dali_is_chosen_only_where_it_makes_twice_the_clips(card, caplog, name, cores, workers, unsuited, chosen):
    caplog.set_level(logging.INFO)
    card(name, cores)
    about = {"workers": workers, "threads": max(cores // max(workers, 1), 1), "frames": 16, "pixels": 340 * 256}
    assert choose_decoder(CUDA, unsuited=unsuited, **about) == chosen
    (line,) = caplog.messages
    expected = min(cores * 1e3 / 6.1, 1e3 / (0.34 if workers else 0.9))
    assert f"PyAV is expected to decode {expected:.0f} clips/s, in planes of up to 2.1 MB" in line
    held = "; workers= would decode more" if cores == 16 and not workers else ""
    assert f"on {cores} cores (workers={workers}{held})" in line
    assert ("using DALI" in line) == (chosen == "dali")
    assert unsuited in line


def finish_of(folder, **changes):
    run = video_loader(folder, **{"clip": CLIP, "batch_size": 2, "device": CUDA, "threads": 1, **changes})
    return type(run._production._delivery.finish)


def test_a_cuda_device_gets_planes_and_the_log_says_why_not(h264, vp9, card, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    card("NVIDIA H100")
    assert finish_of(h264, workers=16) is PlanesFinish
    assert "using PyAV and output='yuv'" in caplog.text
    assert finish_of(h264, workers=2, flow=DisOfBatch()) is Composed
    assert finish_of(h264, backend="cpu") is PlanesFinish
    assert finish_of(h264, output="rgb") is Unchanged
    for changes, reason in (({"flow": "dis"}, "flow=Dis"), ({"colour": ColourJitter()}, "colour jitter")):
        caplog.clear()
        assert finish_of(h264, **changes) is Unchanged
        assert "PyAV converts to RGB in the loader" in caplog.text
        assert reason in caplog.text
    monkeypatch.setattr(decoders, "_PLANES_MS", 600.0)
    assert finish_of(h264) is HardwareFinish
    assert finish_of(vp9) is PlanesFinish
    assert "it decodes h264 and hevc on the device 'cuda'" in caplog.text
    caplog.clear()
    assert finish_of(h264, device=CPU) is Unchanged
    assert not caplog.text, "without a CUDA device there is nothing to choose"


def test_mixtures_refuse_dali_by_name_and_options_that_went_away_are_refused(h264):
    with pytest.raises(ValueError, match="backend='dali' works with a single split, not with a mixture"):
        mix([(VideoData(clip=CLIP, backend="dali").source(Split.open(h264, "video", device="cpu", threads=1)), 1)])
    with pytest.raises(TypeError, match=r"no parameter 'decoders': the decoder is chosen by an estimate"):
        video_loader(h264, decoders="decoders.json")
    with pytest.raises(ValueError, match="has no field 'decoders'"):
        VideoData.from_dict({"kind": "VideoData", "decoders": "decoders.json"})
    with pytest.raises(ValueError, match=r"backend must be.*did\ you\ mean\ 'cpu'\?"):
        video_loader(h264, clip=CLIP, batch_size=2, device="cpu", backend="gpu")


def test_ranks_that_choose_otherwise_are_told_so():
    check_agreement("DALI", "no group")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for _ in range(2):
            check_agreement("PyAV", "one loader")
        check_agreement("DALI", "another loader")
        with pytest.raises(ValueError, match="another rank decodes with PyAV but this one with DALI"):
            check_agreement("DALI", "one loader")
    finally:
        dist.destroy_process_group()
