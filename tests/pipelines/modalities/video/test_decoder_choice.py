"""Which clips a hardware decoder gets, and what its failures cost: no card is needed to tell.

A clip is inspected before it is packed. `FakeNvdec` stands for a decoder that raises, hangs, or hands out memory that
it did not write.
"""

import logging
from dataclasses import replace
from threading import Event

import av
import numpy as np
import pytest
import torch
from av.bitstream import BitStreamFilterContext

from maskstream.pipelines.decode.nvdec import missing_libraries
from maskstream.pipelines.modalities.audio.dali import build_mel_graph
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.video import hardware
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.dali import clip_graph
from maskstream.pipelines.modalities.video.packing import EncodedClip, Refusal, pack_clip
from maskstream.pipelines.stream.sampler import BadRowsError
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.errors import DataError

from .fake_nvdec import FakeNvdec, pretend
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
    return pack_clip(clip_bytes(video, first + NUMBERS), first + NUMBERS, size, device)


# Inspection.


@pytest.mark.parametrize(
    ("says", "codec", "options", "changes"),
    [
        ("", "libx264", FAST, {}),
        ("", "libx264", FAST, {"size": (34, 34)}),
        ("", "libx264", FAST, {"size": (110, 90)}),
        ("", "libx265", HEVC, {}),
        ("", "libx264", OPEN, {}),
        ("starts in an open GOP, where NVDEC returns no frames", "libx264", OPEN, {"first": 14}),
        ("yuv420p10le; only 8-bit", "libx264", FAST, {"pixels": "yuv420p10le"}),
        ("yuv422p; only 8-bit 4:2:0", "libx264", FAST, {"pixels": "yuv422p"}),
        ("yuv420p10le; only 8-bit", "libx265", HEVC, {"pixels": "yuv420p10le"}),
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
    assert fast.finish.on_cpu == {"yuv444p; only 8-bit 4:2:0 is decoded": 4}
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
        text = clip_graph(8, views, 224, 4, torch.device("cuda"), encoded=encoded).serialize()
        assert (b"VideoDecoder" in text or b"decoders__Video" in text) == encoded
        assert b"mixed" in text if encoded else b"gpu" in text


def test_the_graph_of_spectrograms_for_a_gpu_serialises():
    assert b"MelFilterBank" in build_mel_graph(LogMel(), 8, 20480, 4, torch.device("cuda")).serialize()


def test_nvdec_needs_libraries_of_the_driver():
    assert set(missing_libraries()) <= {"libcuda.so.1", "libnvcuvid.so.1"}


# A decoder that answers as NVDEC would.

IN_BAND = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=2:repeat-headers=1:log-level=none"}
SMALL = VideoClip(frames=4, stride=3, size=32)


@pytest.mark.parametrize(
    ("codec", "options", "size", "others", "on_cpu"),
    [
        ("libx264", IN_BAND, (64, 48), {}, {}),
        ("libx264", IN_BAND, (68, 48), {}, {"h264 of 68x48 pixels, coded as 80x48": 4}),
        ("libx264", FAST, (68, 42), {}, {}),
        ("libx264", OPEN, (64, 48), {}, {"a clip that starts in an open GOP": 2}),
        ("libx264", FAST, (64, 48), {2: {"pixels": "yuv420p10le"}}, {"yuv420p10le; only 8-bit": 1}),
        ("libx264", FAST, (64, 48), {2: {"matrix": 1}}, {}),
        ("libx265", HEVC, (152, 144), {1: {"width": 148}}, {"hevc of 148x144 pixels, coded as 152x144": 1}),
    ],
    ids=["repeated headers", "repeated, cropped", "cropped", "open GOP", "10 bits", "BT.709", "hevc"],
)
def test_nvdecs_pixels_are_right_or_the_cpus(tmp_path, monkeypatch, codec, options, size, others, on_cpu):
    made_of = pretend(monkeypatch)
    folder = write_split(tmp_path, codec, options, "copy", size=size, others=others)
    sampler = sampler_of(folder, clip=replace(SMALL, size=64), views=1)
    fast = Fast(sampler, packed_for="cuda")
    batch, expected = made(fast, range(4), epoch=1), made(sampler, range(4), epoch=1)
    assert_same_but_pixels(batch, expected)
    assert_pixels_agree(batch.video, expected.video)
    found = fast.finish.on_cpu
    assert [next(one for one in on_cpu if one in reason) for reason in found] == list(on_cpu)
    assert [*found.values()] == [*on_cpu.values()]
    assert len(made_of) == (sum(on_cpu.values()) < 4)


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("h264"), "libx264", IN_BAND, "copy", size=(64, 48))


@pytest.fixture
def nvdec(h264, monkeypatch):
    """Makes a path whose decoder has a fault, its reference, and the list of its decoders."""

    def of(fault, **changes):
        made_of = pretend(monkeypatch, fault)
        sampler = sampler_of(h264, **{"clip": SMALL, "views": 1, **changes})
        return Fast(sampler, packed_for="cuda"), sampler, made_of

    return of


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, TypeError])
def test_after_three_failures_the_run_stays_on_the_cpu(nvdec, caplog, kind):
    def raises(frames):
        raise kind("out of memory")

    fast, sampler, made_of = nvdec(raises)
    expected = made(sampler, range(4))
    for _ in range(5):
        batch = made(fast, range(4))
        assert_same_but_pixels(batch, expected)
        assert torch.equal(batch.video, expected.video)
    assert sum(one.runs for one in made_of) == 3
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING", "WARNING", "ERROR"]
    assert f"{kind.__name__}: out of memory" in caplog.text
    assert "the rest of this run is decoded on the CPU" in caplog.text
    assert fast.finish.on_cpu == {"DALI failed": 12, "after faults of DALI": 8}


def test_a_decoder_that_hangs_does_not_hang_the_run(nvdec, monkeypatch, caplog):
    monkeypatch.setattr(hardware, "LIMIT_S", 0.05)
    forever = Event()
    fast, sampler, made_of = nvdec(lambda frames: forever.wait() and frames)
    for _ in range(2):
        assert torch.equal(made(fast, range(2)).video, made(sampler, range(2)).video)
    forever.set()
    assert len(made_of) == 1
    assert "no answer for 0.05 s" in caplog.text
    assert "DALI hangs, so the rest of this run is decoded on the CPU" in caplog.text


def test_a_failure_that_a_bad_clip_explains_is_no_fault_of_dali(nvdec, monkeypatch):
    def raises(frames):
        raise RuntimeError("a bad clip")

    fast, _, made_of = nvdec(raises)
    packed = fast.packed(range(3))
    fill = type(fast.finish._sampler).fill

    def refuse(self, request, draft, rows, stats):
        if "v/1" in request.keys:
            with self.manifest.reading(1, "mp4"):
                raise DataError("is damaged")
        fill(self, request, draft, rows, stats)

    monkeypatch.setattr(type(fast.finish._sampler), "fill", refuse)
    for _ in range(6):
        with pytest.raises(BadRowsError, match="v/1") as caught:
            fast.finish(packed, CPU)
        assert list(caught.value.rows) == [1]
    assert len(made_of) == 6, "DALI is tried again"


@pytest.mark.parametrize(
    ("batches", "share"),
    [(8, 0.125), *(pytest.param(300, share, marks=pytest.mark.slow) for share in (0.02, 0.125))],
)
def test_no_garbage_reaches_the_trainer(nvdec, monkeypatch, batches, share):
    """Noise, memory of another clip, or one colour, from any frame on that it differs from by more than 40 levels."""
    monkeypatch.setattr(hardware, "MOST_FAULTS", 10**6)
    draw, memory, spoilt = np.random.default_rng(0), [np.uint8(0)], [0]

    def fault(frames):
        own, old = frames.copy(), memory[0]
        memory[0] = 255 - own[0]
        if draw.random() >= share or len(frames) < 2:
            return own
        spoilt[0] += 1
        start = int(draw.integers(len(own)))
        colour, noise = np.uint8(draw.choice([0, 255])), draw.integers(0, 256, own.shape, dtype=np.uint8)
        legal = [one for one in (old, colour) if np.abs(own[max(start - 1, 0)].astype(float) - one).mean() > 40]
        garbage = [noise, *(np.broadcast_to(one, own.shape) for one in legal)]
        own[start:] = garbage[int(draw.integers(len(garbage)))][start:]
        return own

    fast, sampler, _ = nvdec(fault)
    packed = [fast.packed(range(4), epoch) for epoch in range(min(batches, 8))]
    right = [made(sampler, range(4), epoch).video.float() for epoch in range(len(packed))]
    passed = 0
    for n in range(batches):
        apart = (fast.finish(packed[n % 8], CPU).video - right[n % 8]).abs()
        passed += int((apart.flatten(2).mean(2) > 8).any(1).sum())
    assert spoilt[0] > 0.5 * share * batches * 4
    assert passed == 0
    assert fast.finish.on_cpu["DALI returned wrong frames"] == spoilt[0]


@pytest.mark.parametrize(("batches", "share"), [(8, 0.25), pytest.param(200, 0.02, marks=pytest.mark.slow)])
def test_no_clip_that_stands_still_reaches_the_trainer(nvdec, monkeypatch, batches, share):
    """From some frame on each is the one before it, as from a decoder that hands out its last picture again."""
    monkeypatch.setattr(hardware, "MOST_FAULTS", 10**6)
    monkeypatch.setattr(hardware, "EVERY", 10**6)
    draw, frozen = np.random.default_rng(0), [0]

    def fault(frames):
        if draw.random() >= share or len(frames) < 2:
            return frames
        frozen[0] += 1
        start = int(draw.integers(1, len(frames)))
        return np.concatenate([frames[:start], np.repeat(frames[start - 1 : start], len(frames) - start, axis=0)])

    right, sampler, _ = nvdec(None)
    packed = [right.packed(range(4), epoch) for epoch in range(8)]
    by_dali = [right.finish(one, CPU).video for one in packed]
    by_cpu = [made(sampler, range(4), epoch).video for epoch in range(8)]
    assert not right.finish.on_cpu, "what moves is not suspected"
    fast, _, _ = nvdec(fault)
    passed = 0
    for n in range(batches):
        found = fast.finish(packed[n % 8], CPU).video
        passed += int(((found != by_dali[n % 8]) & (found != by_cpu[n % 8])).flatten(1).any(1).sum())
    assert frozen[0] > 0.5 * share * batches * 4
    assert passed == 0
    assert fast.finish.on_cpu["DALI returned wrong frames"] == frozen[0]


def test_a_decoder_that_always_returns_old_memory_is_given_up(nvdec):
    fast, sampler, made_of = nvdec(lambda frames: np.full_like(frames, 255))
    expected = made(sampler, range(4))
    for _ in range(4):
        assert torch.equal(made(fast, range(4)).video, expected.video)
    assert made_of[0].runs == 3
    assert fast.finish.on_cpu == {"DALI returned wrong frames": 12, "after faults of DALI": 4}


def test_a_clip_of_every_sixteenth_batch_is_compared_as_a_whole(nvdec):
    """What the looks do not show: columns between those that they look at are white."""

    def striped(frames):
        frames = frames.copy()
        frames[:, :, ::4] = 255
        return frames

    fast, _, _ = nvdec(striped)
    for _ in range(16):
        made(fast, range(1, 4))  # video 0 has a large step
    assert fast.finish.on_cpu == {"DALI returned wrong frames": 1}


def test_pixels_of_another_shape_are_a_failure(nvdec, monkeypatch):
    fast, sampler, _ = nvdec(None)
    run = FakeNvdec.run
    monkeypatch.setattr(FakeNvdec, "run", lambda self, **inputs: run(self, **inputs)[::-1])
    assert torch.equal(made(fast, range(2)).video, made(sampler, range(2)).video)
    assert fast.finish.on_cpu == {"DALI failed": 2}
