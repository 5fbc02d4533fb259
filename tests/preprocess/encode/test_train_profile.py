"""The stored forms `train` and `fps`: hierarchy, GOPs, slices, sizes, time."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from maskstream.preprocess.encode.video.fragments import parse_fragments
from maskstream.preprocess.encode.video.video import PROFILES, RejectError, VideoProfile, encode_video
from maskstream.shards.media.mp4 import boxes

TRAIN = PROFILES["train"]


def gop_slice(encoded, first, stop):
    index = encoded.index
    end = index.offset[stop - 1] + index.size[stop - 1]
    return encoded.data[: index.header_size] + encoded.data[index.offset[first] : end]


def test_hierarchy_by_position_and_closed_gops(make_video, planes):
    encoded = encode_video(make_video("a.mp4", 75), TRAIN)
    assert encoded.index.first_frame.tolist() == [0, 32, 64]
    assert not encoded.index.lead.any()
    kinds = [kind for _, kind, _ in planes(encoded.data)]
    assert len(kinds) == encoded.index.n_frames == 75
    for number, kind in enumerate(kinds):
        within = number % 32
        if within == 0:
            assert kind == "I"
        elif within % 4 == 0:
            assert kind == "P"
        elif within < 28 and number < 72:
            assert kind == "B"
        else:  # a closed GOP ends with a P
            assert kind == ("P" if within == 31 or number == 74 else "B")


def test_pts_count_frames(make_video, planes):
    encoded = encode_video(make_video("a.mp4", 40, rate=30), TRAIN)
    np.testing.assert_array_equal(parse_fragments(encoded.data).pts, 512 * np.arange(40))
    np.testing.assert_array_equal(np.diff([pts for pts, _, _ in planes(encoded.data)]), 512)


def test_gop_slices_equal_the_whole(make_video, planes):
    """Also where the last GOP is one frame, whose slice FFmpeg gives other time stamps than the whole."""
    for n in (65, 75):
        encoded = encode_video(make_video("a.mp4", n), TRAIN)
        whole = [frame[1:] for frame in planes(encoded.data)]
        bounds = [*encoded.index.first_frame.tolist(), n]
        for first in range(3):
            for stop in range(first + 1, 4):
                got = [frame[1:] for frame in planes(gop_slice(encoded, first, stop))]
                assert got == whole[bounds[first] : bounds[stop]]


def test_layout_of_the_bytes(make_video):
    encoded = encode_video(make_video("a.mp4", 40, audio=True), TRAIN)
    kinds = [kind for kind, *_ in boxes(memoryview(encoded.data), 0, len(encoded.data))]
    assert kinds == [b"ftyp", b"moov", b"moof", b"uuid", b"mdat", b"moof", b"uuid", b"uuid", b"mdat"]
    assert encoded.data.count(b"trak") == 1  # no audio
    assert encoded.index.offset[0] == encoded.index.header_size
    assert encoded.index.offset[-1] + encoded.index.size[-1] == len(encoded.data)


def test_same_input_same_bytes(make_video):
    path = make_video("a.mp4", 40)
    first, second = encode_video(path, TRAIN), encode_video(path, TRAIN)
    assert first.data == second.data
    assert first.meta == second.meta


def test_frames_are_those_of_the_source(make_video, rgb):
    path = make_video("a.mp4", 40, options={"crf": "4"})
    ours = rgb(encode_video(path, replace(TRAIN, crf=4)).data)
    assert np.abs(ours.astype(int) - rgb(path)).mean() < 3


def test_sides_are_multiples_of_16(make_video):
    assert sizes(make_video("a.mkv", 3, width=67, height=51, pix_fmt="yuv444p")) == (64, 48)
    assert sizes(make_video("b.mkv", 3, width=600, height=400)) == (384, 256)
    assert sizes(make_video("c.mkv", 3, width=260, height=334), short_side=128) == (128, 160)


def sizes(path, **numbers):
    index = encode_video(path, replace(TRAIN, **numbers)).index
    return index.width, index.height


def test_meta(make_video):
    meta = encode_video(make_video("a.mp4", 50, width=600, height=400), TRAIN).meta
    assert meta["original"] == {
        "codec": "h264",
        "width": 600,
        "height": 400,
        "fps": 25.0,
        "n_frames": 50,
        "rotation": 0,
    }
    del meta["original"]
    assert meta == {
        "fps": 25.0,
        "n_frames": 50,
        "width": 384,
        "height": 256,
        "duration_s": 2.0,
        "profile": "train",
        "codec": "h264",
        "vfr": False,
    }


def test_window(make_video, rgb):
    path = make_video("a.mp4", 60, options={"crf": "4"})
    encoded = encode_video(path, replace(TRAIN, crf=4), (10, 45))
    assert encoded.index.n_frames == 35
    assert np.abs(rgb(encoded.data).astype(int) - rgb(path)[10:45]).mean() < 3
    with pytest.raises(RejectError, match="has 60 frames"):
        encode_video(path, TRAIN, (10, 61))
    with pytest.raises(RejectError, match="first < stop"):
        encode_video(path, TRAIN, (5, 5))


def test_fps_profile_keeps_every_fourth_of_30(make_video, rgb):
    path = make_video("a.mp4", 72, rate=30, options={"crf": "4"})
    encoded = encode_video(path, replace(PROFILES["fps"], crf=4))
    assert encoded.index.fps == 7.5
    assert encoded.index.first_frame.tolist() == [0, 16]
    source = rgb(path).astype(int)
    ours = rgb(encoded.data)
    assert len(ours) == 18
    for number in range(18):
        errors = np.abs(source - ours[number]).mean((1, 2, 3))
        assert errors.argmin() == 4 * number


def test_fps_profile_never_adds_frames(make_video):
    encoded = encode_video(make_video("a.mp4", 12, rate=5), PROFILES["fps"])
    assert (encoded.index.fps, encoded.index.n_frames) == (5.0, 12)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_frames_are_kept(make_video, n):
    for profile in PROFILES.values():
        encoded = encode_video(make_video("a.mp4", n), profile)
        assert encoded.index.n_frames == (n if profile.name != "fps" else -(-n * 3 // 10))


def test_unknown_profile():
    with pytest.raises(ValueError, match="name must be 'train', 'fast', 'copy' or 'fps', got 'best'"):
        VideoProfile(name="best")


@pytest.mark.parametrize(
    "numbers",
    [
        {"short_side": 15},
        {"short_side": 8},
        {"short_side": 120},
        {"crf": 60},
        {"preset": "quick"},
        {"keyint": 30},
        {"fps": 7.5},
        {"name": "fps"},
        {"name": "fps", "fps": 0.0},
    ],
)
def test_profile_refuses(numbers):
    with pytest.raises(ValueError, match=r"=|: \w+ must be .*, got"):
        VideoProfile(**numbers)


def test_ntsc_rate_is_exact(make_video):
    path = make_video("a.mkv", 60, pts=[round(i * 1001 / 30) for i in range(60)], time_base=Fraction(1, 1000))
    encoded = encode_video(path, TRAIN)
    assert encoded.index.fps == 30000 / 1001
    assert encoded.index.n_frames == 60
    assert not encoded.meta["vfr"]
