"""A header without cropping: the same pictures in the same places, with what is coded around them."""

import io

import av
import numpy as np
import pytest

from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.shards.media.h264_sps import UnknownSpsError, read_sps, remove_cropping, remove_header_cropping
from maskstream.shards.media.mp4 import read_header

from ...videos import write_frames

X264 = {"preset": "ultrafast", "x264-params": "log-level=none"}


def written(folder, width, height, pixels="yuv420p", **options):
    """The path of a video of noise."""
    draw = np.random.default_rng(0)
    path = folder / f"{width}x{height}{pixels}.mkv"
    blocks = (draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8) for _ in range(6))
    pictures = (np.kron(one, np.ones((8, 8, 1), np.uint8))[:height, :width] for one in blocks)
    return write_frames(path, pictures, pixels=pixels, options={**X264, **options})


def encoded(folder, width, height, pixels="yuv420p"):
    """The video member and its header."""
    path = written(folder, width, height, pixels)
    video = encode_video(path, PROFILES["copy"])
    return video.data, video.data[: video.index.header_size]


def sps_of(avcc):
    """The facts of the only parameter set of an avcC (ISO 14496-15, 5.3.3.1)."""
    assert avcc[5] & 31 == 1
    return read_sps(avcc[8 : 8 + int.from_bytes(avcc[6:8], "big")])


def planes(data):
    with av.open(io.BytesIO(data)) as container:
        return [frame.reformat(format="yuv420p").to_ndarray() for frame in container.decode(video=0)]


@pytest.mark.parametrize("size", [(340, 256), (456, 256), (110, 90), (48, 32), (602, 256)])
def test_what_was_shown_stays_and_what_is_coded_is_shown(tmp_path, size):
    data, header = encoded(tmp_path, *size)
    whole = remove_header_cropping(header)
    sps = sps_of(read_header(whole).extradata)
    assert sps.shown == (sps.width, sps.height) == tuple(-(-side // 16) * 16 for side in size)
    with av.open(io.BytesIO(whole + data[len(header) :])) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == sps.shown
        shown = [frame.to_ndarray() for frame in container.decode(video=0)]
    for frame, before in zip(shown, planes(data), strict=True):
        assert np.array_equal(frame[: size[1], : size[0]], before[: size[1]]), "luma is identical"
    assert (whole == header) == (size == (48, 32))
    assert remove_header_cropping(whole) == whole


@pytest.mark.parametrize(
    ("pixels", "chroma", "depth"), [("yuv420p", 1, 8), ("yuv420p10le", 1, 10), ("yuv422p", 2, 8), ("yuv444p", 3, 8)]
)
def test_the_parameter_set_says_how_samples_are_coded(tmp_path, pixels, chroma, depth):
    _, header = encoded(tmp_path, 102, 70, pixels)
    sps = sps_of(read_header(header).extradata)
    assert (sps.chroma_format, sps.bit_depth) == (chroma, depth)
    assert (sps.width, sps.height, *sps.shown) == (112, 80, 102, 70)


def test_interlaced_frames_are_cropped_by_pairs_of_rows(tmp_path):
    path = written(tmp_path, 112, 72, **{"x264-params": "interlaced=1:log-level=none"})
    with av.open(str(path)) as container:
        sps = sps_of(container.streams.video[0].codec_context.extradata)
    assert (sps.width, sps.height, sps.shown) == (112, 96, (112, 72))


def sps_bits(crop, tail="1"):
    """A parameter set of the main profile with the cropping (left, right, top, bottom), of 320 x 240 pixels."""

    def number(value):
        return f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}"

    text = f"{77:08b}{0:016b}" + "".join(map(number, (0, 0, 0, 4, 2))) + "0" + number(19) + number(14) + "11"
    text += "1" + "".join(map(number, crop)) if any(crop) else "0"
    text += "0" + tail
    return b"\x67" + bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


def test_uncropped_equals_the_set_that_was_made_without_cropping():
    for crop in ((0, 6, 0, 0), (0, 1, 0, 4), (0, 0, 0, 7), (3, 2, 1, 0)):
        assert remove_cropping(sps_bits(crop)) == sps_bits((0, 0, 0, 0))
        left, right, top, bottom = crop
        assert read_sps(sps_bits(crop)).shown == (320 - 2 * (left + right), 240 - 2 * (top + bottom))
    assert remove_cropping(sps_bits((0, 0, 0, 0))) == sps_bits((0, 0, 0, 0))


def test_damage_is_an_error_of_its_own():
    draw = np.random.default_rng(0)
    for _ in range(500):
        for function in (remove_cropping, read_sps):
            try:
                function(draw.bytes(int(draw.integers(0, 40))))
            except UnknownSpsError:
                continue
