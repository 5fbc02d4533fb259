"""Which clips a hardware decoder gets, and what its failures cost: no card is needed to tell.

A clip is inspected before it is packed. Stubs stand for a decoder that raises, or hands out memory it did not write.
"""

import logging

import av
import numpy as np
import pytest
import torch
from av.bitstream import BitStreamFilterContext

from maskstream.pipelines.decode.nvdec import missing_libraries
from maskstream.pipelines.modalities.audio.dali import mel_graph
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.video.dali import clip_graph, clip_pipeline
from maskstream.pipelines.modalities.video.packing import EncodedClip, Refusal, encoded_clip
from maskstream.pipelines.stream.sampler import BadRowsError
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.errors import DataError

from .packed_videos import (
    CPU,
    HEVC,
    OPEN,
    VP9,
    Fast,
    assert_pixels_agree,
    assert_same_but_pixels,
    clip_bytes,
    made,
    sampler_of,
    write_split,
    write_video,
)

NUMBERS = np.arange(0, 24, 4)
FAST = {"preset": "ultrafast"}


@pytest.fixture(scope="module")
def vp9(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("vp9"), "libvpx-vp9", VP9, "copy")


def packed(folder, codec, options=None, profile="copy", size=(160, 144), device="cuda", first=0, **changes):
    path = write_video(folder / "v.mkv", codec, 40, options or {}, *size, **changes)
    video = encode_video(path, PROFILES[profile])
    return encoded_clip(clip_bytes(video, first + NUMBERS), first + NUMBERS, size, device)


# Inspection.


@pytest.mark.parametrize(
    ("says", "codec", "options", "changes"),
    [
        ("", "libx264", FAST, {}),
        ("", "libx264", FAST, {"size": (34, 34)}),
        ("", "libx264", FAST, {"size": (110, 90)}),
        ("", "libx265", HEVC, {}),
        ("", "libx264", OPEN, {}),
        ("begins in an open GOP, where NVDEC gives no pictures", "libx264", OPEN, {"first": 14}),
        ("yuv420p10le; 8 bits", "libx264", FAST, {"pixels": "yuv420p10le"}),
        ("yuv422p; 8 bits and 4:2:0", "libx264", FAST, {"pixels": "yuv422p"}),
        ("yuv420p10le; 8 bits", "libx265", HEVC, {"pixels": "yuv420p10le"}),
        ("h264 of 32x96 pixels; NVDEC needs at least 48x16", "libx264", FAST, {"size": (32, 96)}),
        ("hevc of 160x128 pixels; NVDEC needs at least 144x144", "libx265", HEVC, {"size": (160, 128)}),
        ("h264 of 4112x32 pixels; NVDEC takes at most 4096x4096", "libx264", FAST, {"size": (4112, 32)}),
        ("vp9, which NVDEC does not decode here", "libvpx-vp9", VP9, {}),
        ("", "libvpx-vp9", VP9, {"device": "cpu"}),
        ("h264, which DALI on a CPU does not decode here", "libx264", FAST, {"device": "cpu"}),
    ],
)
def test_formats_that_the_decoder_lacks_are_decoded_on_the_cpu(tmp_path, says, codec, options, changes):
    clip = packed(tmp_path, codec, options, **changes)
    assert isinstance(clip, Refusal if says else EncodedClip)
    if says:
        assert says in clip.reason


@pytest.mark.parametrize("first", [0, 6])
def test_what_nvdec_gets_begins_with_parameters_and_an_idr_picture(tmp_path, first):
    clip = packed(tmp_path, "libx264", {"preset": "ultrafast", "g": "6"}, size=(110, 90), first=first)
    assert clip.size == (112, 96), "coded and shown sizes are equal, so that a cached decoder fits"
    mp4 = tmp_path / "clip.mp4"
    mp4.write_bytes(clip.mp4.tobytes())
    with av.open(str(mp4)) as container:
        stream = container.streams.video[0]
        to_annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
        data = bytes(next(unit for packet in container.demux(stream) for unit in to_annex_b.filter(packet)))
    kinds = [unit.lstrip(b"\0")[0] & 31 for unit in data.split(b"\0\0\1") if unit.strip(b"\0")]
    assert [kind for kind in kinds if kind in (1, 5, 7, 8)][:3] == [7, 8, 5]


def test_clips_of_other_formats_are_put_in_their_places(tmp_path, caplog):
    """VP9 in 4:4:4 among 4:2:0: the one is decoded on the CPU, exactly, and the others by DALI."""
    caplog.set_level(logging.INFO)
    others = {1: {"pixels": "yuv444p"}, 2: {"pixels": "yuv444p"}}
    sampler = sampler_of(write_split(tmp_path, "libvpx-vp9", VP9, "copy", others=others))
    fast = Fast(sampler)
    for indexes in (range(4), [1, 2], [3, 0]):
        batch, expected = made(fast, indexes), made(sampler, indexes)
        assert_same_but_pixels(batch, expected)
        assert_pixels_agree(batch.video, expected.video)
        for row, index in enumerate(indexes):
            own = slice(2 * row, 2 * row + 2)
            assert torch.equal(batch.video[own], expected.video[own]) == (index in others)
    assert fast.finish.on_cpu == {"yuv444p; 8 bits and 4:2:0 are decoded": 4}
    assert caplog.text.count("decoded on the CPU") == 1, "each reason is said once"


def test_the_colours_of_bt709_are_right(tmp_path):
    """DALI converts as BT.601; the correction leaves what conversion and rounding leave of BT.601 too."""
    errors = {}
    for matrix in (None, 1):
        folder = tmp_path / str(matrix)
        folder.mkdir()
        others = {number: {"matrix": matrix} for number in range(4)}
        sampler = sampler_of(write_split(folder, "libvpx-vp9", VP9, "copy", others=others))
        fast = Fast(sampler)
        assert {clip.standard for clip in fast.packed(range(4)).clips} == {"bt709" if matrix else "bt601"}
        difference = made(fast, range(4)).video.float() - made(sampler, range(4)).video
        errors[matrix] = difference.abs().mean().item()
    assert errors[1] < errors[None] + 1.5
    assert errors[1] < 3


# The graphs of a GPU, which cannot be built here, but are checked as they are put together.


@pytest.mark.parametrize("encoded", [True, False])
def test_the_graph_for_a_gpu_serialises(encoded):
    for views in (1, 3):
        text = clip_graph(8, views, 224, 4, "gpu", None, encoded=encoded).serialize()
        assert (b"VideoDecoder" in text or b"decoders__Video" in text) == encoded
        assert b"mixed" in text if encoded else b"gpu" in text


def test_the_graph_of_spectrograms_for_a_gpu_serialises():
    assert b"MelFilterBank" in mel_graph(LogMel(), 8, 20480, 4, "gpu", None).serialize()


def test_nvdec_needs_libraries_of_the_driver():
    assert set(missing_libraries()) <= {"libcuda.so.1", "libnvcuvid.so.1"}


# A decoder that fails.


class Stub:
    """A pipeline that raises, or returns its pixels after `spoil` changed them."""

    def __init__(self, real, spoil=None):
        self.real, self.spoil, self.max_batch_size, self.runs = real, spoil, 100, 0

    def run(self, **inputs):
        self.runs += 1
        if self.spoil is None:
            raise RuntimeError("out of memory")
        pixels = np.array(self.real.run(**inputs)[0].as_tensor())
        self.spoil(pixels)
        return [Returned(pixels)]


class Returned:
    def __init__(self, pixels):
        self.pixels = pixels

    def as_tensor(self):
        return self

    def shape(self):
        return self.pixels.shape


@pytest.fixture
def stubbed(vp9, monkeypatch):
    """Makes a path whose pipeline is a stub, also after it is built again."""
    module = "maskstream.pipelines.modalities.video.dali"
    real = clip_pipeline

    def fed(source, video, cuda_stream=None):
        video.copy_(torch.from_numpy(source.pixels if isinstance(source, Returned) else np.array(source)))

    def stub_of(spoil=None):
        stubs = []

        def built(*arguments):
            stubs.append(Stub(real(*arguments), spoil))
            return stubs[-1]

        monkeypatch.setattr(f"{module}.clip_pipeline", built)
        monkeypatch.setattr(f"{module}.dali_torch.feed_ndarray", fed)
        return Fast(sampler_of(vp9)), stubs

    return stub_of


def test_after_three_failures_the_run_stays_on_the_cpu(vp9, stubbed, caplog):
    fast, stubs = stubbed()
    expected = made(sampler_of(vp9), range(4))
    for _ in range(5):
        batch = made(fast, range(4))
        assert_same_but_pixels(batch, expected)
        assert torch.equal(batch.video, expected.video)
    assert sum(stub.runs for stub in stubs) == 3
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING", "WARNING", "ERROR"]
    assert "the rest of this run is decoded on the CPU" in caplog.text
    assert fast.finish.on_cpu == {"DALI failed": 12, "after faults of DALI": 8}


def test_a_failure_that_a_bad_clip_explains_is_no_fault_of_dali(vp9, stubbed, monkeypatch):
    fast, stubs = stubbed()
    packed = fast.packed(range(3))
    fill = type(fast.finish._sampler).fill

    def refuse(self, request, draft, row, stats):
        if request.key == "v/1":
            with self.manifest.reading(1, "mp4"):
                raise DataError("is damaged")
        fill(self, request, draft, row, stats)

    monkeypatch.setattr(type(fast.finish._sampler), "fill", refuse)
    for _ in range(6):
        with pytest.raises(BadRowsError, match="v/1") as caught:
            fast.finish(packed, CPU)
        assert list(caught.value.rows) == [1]
    assert len(stubs) == 6, "DALI is tried again"


def test_memory_that_was_not_written_costs_its_clips_and_not_the_run(vp9, stubbed, caplog):
    """The decoder returns the pictures of another clip for one row: they are found and replaced."""
    broken = [None]

    def spoil(pixels):
        if broken[0] is not None:
            pixels[broken[0]] = 255 - pixels[broken[0]]

    fast, _ = stubbed(spoil)
    expected = made(sampler_of(vp9), range(4))
    assert_pixels_agree(made(fast, range(4)).video, expected.video)
    for row in (1, 2, 3):  # each batch compares the next row
        broken[0] = row
        batch = made(fast, range(4))
        own = slice(2 * row, 2 * row + 2)
        assert torch.equal(batch.video[own], expected.video[own])
        assert_pixels_agree(batch.video, expected.video)
        broken[0] = None
        assert_pixels_agree(made(fast, range(4)).video, expected.video)
        made(fast, range(4)), made(fast, range(4)), made(fast, range(4))
    assert "returned other pictures than those of" in caplog.text
    assert "ERROR" not in caplog.text, "good batches came between"


def test_a_decoder_that_always_returns_old_memory_is_given_up(vp9, stubbed, caplog):
    fast, stubs = stubbed(lambda pixels: pixels.fill(255))
    expected = made(sampler_of(vp9), range(4))
    for _ in range(4):
        assert torch.equal(made(fast, range(4)).video, expected.video)
    assert sum(stub.runs for stub in stubs) == 3
    assert fast.finish.on_cpu == {"DALI returned other pictures": 12, "after faults of DALI": 4}


def test_pixels_of_another_shape_are_a_failure(vp9, stubbed):
    fast, stubs = stubbed(lambda pixels: setattr(stubs[-1], "short", None))
    original = Returned.shape
    try:
        Returned.shape = lambda self: self.pixels.shape[:-1]
        batch, expected = made(fast, range(2)), made(sampler_of(vp9), range(2))
    finally:
        Returned.shape = original
    assert torch.equal(batch.video, expected.video)
    assert fast.finish.on_cpu == {"DALI failed": 2}
