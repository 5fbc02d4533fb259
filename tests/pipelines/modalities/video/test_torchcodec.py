"""torchcodec as a decoder of packed clips: the pixels of output="yuv" by PyAV, bit by bit, and nothing in the identity.

torchcodec 0.17 from PyPI does not import beside a torch for CPUs, so PyAV plays it here, behind its interface. Where it
does import, with a torch for CUDA (no card is needed), the real one runs too.
"""

import io
import sys
import threading
from dataclasses import replace
from threading import Event
from types import ModuleType, SimpleNamespace

import av
import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, VideoData, video_loader
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode import nvdec
from maskstream.pipelines.decode.cpu import cut_planes
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video import hardware, packing
from maskstream.pipelines.modalities.video.torchcodec import TorchcodecDecoder
from maskstream.pipelines.modalities.video.yuv import PlanesFinish
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted

from .packed_videos import CPU, HEVC, OPEN, Fast, assert_same_but_pixels, made, sampler_of, write_split
from .test_dali import DisOfBatch

CUDA = torch.device("cuda", 0)
FAST = {"preset": "ultrafast"}
CLIP = VideoClip(frames=4, stride=3, size=64)
MISSING = nvdec.missing_torchcodec()


class Demuxer:
    """torchcodec's, played by PyAV."""

    spoil = staticmethod(lambda frames: frames)
    """What it does to the decoded frames of a clip."""

    def __init__(self, source):
        assert isinstance(source, bytes)
        self.container = av.open(io.BytesIO(source))
        self.streams = [self]

    def __iter__(self):
        return (packet for packet in self.container.demux(video=0) if packet.size)

    def make_decoder(self, device):
        assert device == CPU
        return self

    def decode(self, packet):
        return self.spoil([raw_frame(frame) for frame in packet.decode()])

    def drain(self):
        return self.spoil([raw_frame(frame) for frame in self.container.streams.video[0].decode(None)])


def raw_frame(frame):
    """The planes as NVDEC's surfaces have them: U and V interleaved."""
    luma, *uv = cut_planes(frame, Crop(x=0, y=0, width=frame.width, height=frame.height))
    chroma = torch.from_numpy(np.stack(uv, axis=-1))
    return SimpleNamespace(
        pts_seconds=frame.time,
        pixel_format="nv12" if frame.format.name == "yuv420p" else frame.format.name,
        width=frame.width,
        height=frame.height,
        planes=(torch.from_numpy(luma.copy()), chroma[..., 0], chroma[..., 1]),
    )


@pytest.fixture
def played(monkeypatch):
    """Puts PyAV in torchcodec's place; returns the class that plays it."""
    own = type("Demuxer", (Demuxer,), {})
    decoders = ModuleType("torchcodec.decoders")
    decoders.Demuxer, decoders.VideoPacketDecoder = own, object
    package = ModuleType("torchcodec")
    package.decoders, package.ffmpeg_major_version = decoders, 8
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    for module in (nvdec, packing):
        monkeypatch.setattr(module, "missing_torchcodec", lambda: "")
        monkeypatch.setattr(module, "missing_libraries", list)
    return own


@pytest.fixture(params=["played", "real"])
def decoder(request):
    if request.param == "played":
        request.getfixturevalue("played")
    elif MISSING:
        pytest.skip(MISSING)
    return TorchcodecDecoder(CLIP.size, 2)


def paths(folder, decoder=None, **changes):
    """The path of packed clips, and that of PyAV's planes."""
    planes = sampler_of(folder, clip=CLIP, output="yuv", **changes)
    return Fast(planes, packed_for="cuda", decoder=decoder or TorchcodecDecoder(CLIP.size, 2)), planes


def assert_equal(fast, planes, indexes=range(4), epoch=0):
    batch, expected = made(fast, indexes, epoch), PlanesFinish(size=CLIP.size)(made(planes, indexes, epoch), CPU)
    assert_same_but_pixels(batch, expected)
    assert torch.equal(batch.video, expected.video)


@pytest.mark.parametrize(
    ("codec", "options", "size", "others", "on_cpu"),
    [
        ("libx264", FAST, (110, 90), {2: {"matrix": 1}}, 0),
        ("libx264", OPEN, (64, 48), {1: {"pixels": "yuv420p10le"}}, 3),
        pytest.param("libx265", HEVC, (152, 144), {1: {"width": 148}}, 2, marks=pytest.mark.slow),
    ],
    ids=["cropped, BT.709", "open GOP, 10 bits", "hevc"],
)
def test_pixels_are_those_of_pyavs_planes_whoever_decodes(tmp_path, decoder, codec, options, size, others, on_cpu):
    fast, planes = paths(write_split(tmp_path, codec, options, "copy", size=size, others=others), decoder)
    for epoch in range(2):
        assert_equal(fast, planes, epoch=epoch)
    assert fast.finish.on_cpu.total() == on_cpu


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("h264"), "libx264", FAST, "copy", size=(64, 48))


def black(frames):
    return [SimpleNamespace(**{**vars(one), "planes": tuple(map(torch.zeros_like, one.planes))}) for one in frames]


SPOILT = {
    "returned wrong frames": black,
    "frames are not in order": lambda frames: frames[::-1] + frames,
    "frames were returned": lambda frames: frames[1:],
    "a frame in p010le with 64x48 pixels": lambda frames: [
        SimpleNamespace(**{**vars(f), "pixel_format": "p010le"}) for f in frames
    ],
    "with 80x48 pixels": lambda frames: [SimpleNamespace(**{**vars(f), "width": 80}) for f in frames],
}


@pytest.mark.parametrize(
    "says", [says if n < 2 else pytest.param(says, marks=pytest.mark.slow) for n, says in enumerate(SPOILT)]
)
def test_what_torchcodec_returns_wrongly_is_decoded_by_pyav(h264, played, caplog, says):
    fast, planes = paths(h264)
    assert_equal(fast, planes, range(2))
    assert not fast.finish.on_cpu
    played.spoil = staticmethod(SPOILT[says])
    for _ in range(4):
        assert_equal(fast, planes, range(2))
    assert says in caplog.text
    assert "torchcodec failed 3 times within 100 batches, so the rest of this run is decoded on the CPU" in caplog.text
    assert fast.finish.on_cpu["after faults of torchcodec"] == 2


def test_a_decoder_that_hangs_keeps_no_process_from_ending_and_its_threads_end_with_it(h264, played, monkeypatch):
    monkeypatch.setattr(hardware, "LIMIT_S", 0.05)
    forever, before = Event(), {*threading.enumerate()}
    fast, planes = paths(h264)
    played.spoil = staticmethod(lambda frames: forever.wait() and frames)
    assert_equal(fast, planes, [0])
    assert fast.finish.on_cpu == {"torchcodec failed": 1}
    hanging = {*threading.enumerate()} - before
    assert len(hanging) == 3
    assert all(thread.daemon for thread in hanging)
    forever.set()
    del fast
    for thread in hanging:
        thread.join(5)
        assert not thread.is_alive()


def test_machines_with_and_without_it_resume_each_other(h264, played):
    settings = {"clip": CLIP, "batch_size": 2, "device": CUDA, "threads": 1, "seed": 3}
    ours, theirs = (video_loader(h264, backend=backend, **settings) for backend in ("torchcodec", "cpu"))
    state = ours.state_dict()
    assert state == theirs.state_dict()
    assert "output" not in state
    theirs.load_state_dict(state)
    video_loader(h264, backend="torchcodec", flow=DisOfBatch(), **settings)


def test_what_is_refused(h264, played, monkeypatch):
    settings = {"clip": CLIP, "batch_size": 2, "backend": "torchcodec"}
    refused = {
        "torchcodec decodes on CUDA devices; PyAV does on a CPU; use backend='cpu'": {"device": "cpu"},
        "flow=Dis.*needs single clips, but torchcodec decodes whole batches": {"device": CUDA, "flow": "dis"},
        "returns YUV planes, but output='rgb' asks for RGB": {"device": CUDA, "output": "rgb"},
    }
    for says, changes in refused.items():
        with pytest.raises(ValueError, match=says):
            video_loader(h264, **settings, **changes)
    with pytest.raises(ValueError, match="backend='torchcodec' works with a single split, not with a mixture"):
        VideoData(clip=CLIP, backend="torchcodec").source(Split.open(h264, "video", device="cpu", threads=1))
    monkeypatch.setattr(packing, "missing_torchcodec", lambda: "it needs torchcodec 0.17")
    with pytest.raises(ValueError, match=r"'torchcodec': it needs torchcodec 0\.17; use backend='cpu'"):
        video_loader(h264, device=CUDA, **settings)


def test_where_it_does_not_import_one_sentence_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    nvdec.missing_torchcodec.cache_clear()
    says = nvdec.missing_torchcodec()
    nvdec.missing_torchcodec.cache_clear()
    assert says.startswith(
        f"it needs torchcodec 0.17 or later, built for this torch ({torch.__version__}), and FFmpeg: "
    )


def test_samples_that_are_left_out_shift_no_clip_that_the_cpu_decodes(h264, played):
    played.spoil = staticmethod(black)
    split = Split.open(h264, "video", device=CUDA, threads=1, shuffle=False)
    split = replace(split, kept=np.array([1, 3]))  # as where short videos are skipped
    data = VideoData(clip=CLIP, backend="torchcodec", augment=None)
    sources = [one.loader_source(split) for one in (data, replace(data, backend="cpu"))]
    found, expected = (one.finish(batch_of(one.sampler, Wanted.of(range(2))), CPU) for one in sources)
    assert found.key == expected.key == ["v/1", "v/3"]
    assert torch.equal(found.video, expected.video)
    assert sources[0].finish.on_cpu
