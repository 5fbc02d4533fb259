"""What passes a limit is a reject, in any modality, and is found before it is decoded where its header says so."""

import struct
import wave
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.image.encoder import ImageEncoder, read_declared_size
from maskstream.preprocess.encode.limits import Limits, check_image_size, check_sound_values, get_limits, lasts, limited
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.source import RejectError, Source

FAST = VideoEncoder(replace(PROFILES["train"], preset="ultrafast"))


def encode(encoder, path, reports=None, window=None, **limits):
    """Encode a file within limits; `reports` gets the time limits of the attempts."""
    with limited("it", Limits(**limits), lambda attempt: reports is not None and reports.append(attempt.time_s)):
        return encoder.encode(Source(id="it", path=path, label=0, window=window))


def rejects(match):
    return pytest.raises(RejectError, match=match)


def test_frames_and_their_pixels(make_video):
    path = make_video("a.mp4", 12)
    with av.open(str(path)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    encode(FAST, path, frame_pixels=width * height, frames=12)
    with rejects(f"has frames of {width}x{height} = {width * height} pixels; the limit is {width * height - 1}"):
        encode(FAST, path, frame_pixels=width * height - 1)
    with rejects("has 12 frames or more; the limit is 11"):
        encode(FAST, path, frames=11)
    encode(FAST, path, frames=5, window=(0, 5))
    for profile in ("copy", "fps"):
        with rejects("the limit is 11"):
            encode(FAST.in_profile(PROFILES[profile]), path, frames=11)


def test_frames_that_grow_after_the_header_are_not_decoded(tmp_path):
    path = tmp_path / "grows.h264"
    path.write_bytes(_h264(64, 64) + _h264(640, 640))
    encode(FAST, path)
    with rejects("3 frames can be read|4 frames can be read|5 frames can be read"):
        encode(FAST, path, frame_pixels=10_000)


def _h264(width, height):
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate, codec.time_base = Fraction(25), Fraction(1, 25)
    packets = []
    for pts in range(5):
        frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
        frame.pts = pts
        packets += codec.encode(frame)
    return b"".join(bytes(packet) for packet in [*packets, *codec.encode(None)])


def test_pixels_that_are_very_wide_count_as_shown(make_video):
    def stretched(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 1)

    path = make_video("wide.mp4", 4, setup=stretched)
    with rejects("pixels; the limit is 8000"):
        encode(FAST, path, frame_pixels=8000)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.ppm"])
def test_images_are_measured_by_their_header(tmp_path, monkeypatch, name):
    path = tmp_path / name
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    encode(ImageEncoder(), path, image_pixels=1200)
    monkeypatch.setattr(cv2, "imdecode", None)
    with rejects("has 40x30 = 1200 pixels; the limit is 1199"):
        encode(ImageEncoder(), path, image_pixels=1199)


def test_sizes_in_odd_headers():
    assert read_declared_size(b"P5 # a comment 1 2\n# 3 4\n 640\n480 255\n") == (640, 480)
    assert read_declared_size(b"BM" + bytes(12) + struct.pack("<Iii", 40, 640, -480)) == (640, 480)
    entries = struct.pack(">HHIHH", 256, 3, 1, 640, 0) + struct.pack(">HHII", 257, 4, 1, 480)
    assert read_declared_size(b"MM\0*" + struct.pack(">IH", 8, 2) + entries) == (640, 480)
    big = struct.pack("<HHQQ", 256, 16, 1, 1 << 40) + struct.pack("<HHQQ", 257, 4, 1, 480)
    assert read_declared_size(b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2) + big) == (1 << 40, 480)
    for data in (b"GIF89a", b"II*\0", b"BM", b"MM\0*" + struct.pack(">IH", 8, 0)):
        with pytest.raises(RejectError, match=r"open: is (truncated|not an? )"):
            read_declared_size(data)


def test_the_length_of_sounds(tmp_path):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-99, 99, 16000 * 2, np.int16).tobytes())
    encode(AudioEncoder(), path, sound_s=2.0, sound_values=32000)
    with rejects("is longer than 1.5 s; cut it into windows"):
        encode(AudioEncoder(), path, sound_s=1.5)
    with rejects(r"samples \(of all channels\) or more; the limit is 31999"):
        encode(AudioEncoder(), path, sound_values=31999)


def test_long_media_have_more_time(make_video):
    path = make_video("a.mp4", 50, rate=25)
    times = []
    encode(FAST, path, times, time_s=1.0, time_per_s=20.0)
    assert times[0] == 1.0
    assert times[-1] == 40.0
    times = []
    encode(FAST, path, times)
    assert set(times) == {60.0}


def test_limits_are_checked_and_end_with_their_block():
    with pytest.raises(ValueError, match="frames must be an integer of at least 1, got 0"):
        Limits(frames=0)
    with pytest.raises(ValueError, match="from 1 to 268435456 pixels, the most that loaders read, got"):
        Limits(image_pixels=1 << 29)
    with limited("a", Limits(frames=3)):
        assert get_limits().frames == 3
    assert get_limits() == Limits()


def test_the_memory_that_a_source_may_take(tmp_path):
    """By default 2 GiB, more for large files, pictures and sounds; what is set holds for all."""
    seen = []

    def attempts(limits, size_bytes=0, pixels=0, values=()):
        seen.clear()
        with limited("it", limits, lambda attempt: seen.append(attempt.memory_bytes), size_bytes=size_bytes):
            if pixels:
                check_image_size(pixels, 1)
            for count in values:
                check_sound_values(count)
        return seen

    assert attempts(Limits()) == [2 << 30]
    assert attempts(Limits(), size_bytes=1 << 26) == [1 << 32]
    assert attempts(Limits(), pixels=1 << 20) == [2 << 30]
    assert attempts(Limits(), pixels=1 << 28) == [2 << 30, 1 << 33]
    assert attempts(Limits(), values=range(0, 1 << 30, 1 << 20)) == [2 << 30, *(1 << n for n in range(32, 37))]
    assert attempts(Limits(memory_gb=0), size_bytes=1 << 40, pixels=1 << 28) == [None]
    assert attempts(Limits(memory_gb=1.5), size_bytes=1 << 40, pixels=1 << 28) == [1_500_000_000]
    with pytest.raises(ValueError, match="memory_gb must be a number of at least 0 or None, got -1"):
        Limits(memory_gb=-1)


def test_time_and_memory_are_told_together():
    seen = []
    with limited("it", Limits(), seen.append):
        lasts(10)
        check_image_size(1 << 28, 1)
    assert [(attempt.time_s, attempt.memory_bytes) for attempt in seen] == [
        (60, 2 << 30),
        (200, 2 << 30),
        (200, 1 << 33),
    ]
