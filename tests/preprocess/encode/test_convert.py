"""Frames keep their colours, whatever matrix and range they come with."""

import gc
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.preprocess.encode.video import convert
from maskstream.preprocess.encode.video.convert import Converter, Fit, fitted, list_conversion_filters

WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Red's and blue's share of Y, by the number of the matrix in ISO 23091-2."""


def rgb_of(yuv, weights, *, full):
    """R, G and B, 1 for full, of Y, U and V in 8 bits (..., 3)."""
    red, blue = weights
    y = yuv[..., 0] / 255 if full else (yuv[..., 0] - 16) / 219
    u, v = ((yuv[..., n] - 128) / (255 if full else 224) for n in (1, 2))
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)


def flat(colour, name, matrix, *, full):
    """A frame of one colour, given in 8 bits."""
    frame = av.VideoFrame(192, 128, name)
    scale = 4 if "10" in name else 1
    for plane, values in zip(frame.planes, [colour[:1], colour[1:]] if name == "nv12" else colour, strict=True):
        kind = np.uint16 if scale > 1 else np.uint8
        pattern = np.atleast_1d(np.array(values, kind) * scale)
        plane.update(np.resize(pattern, plane.buffer_size // pattern.itemsize).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", ["yuv420p", "yuv444p", "yuv422p10le", "nv12"])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_the_matrix_is_converted_on_the_small_frame(matrix, name, full):
    draw = np.random.default_rng(matrix)
    converter = Converter(64, Fraction(1))
    for _ in range(20):
        colour = draw.integers(60, 190, 3)
        frame = flat(colour.tolist(), name, matrix, full=full)
        filters = [filter for filter, _ in list_conversion_filters(frame, Fit((96, 64), (96, 64)))]
        assert filters[0] == "scale"
        assert ("colorspace" in filters) == (matrix != 6)
        made = converter(frame)
        planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:32, :48] for plane in made.planes]
        assert all(np.ptp(plane) <= 2 for plane in planes)  # 10 bits are dithered
        ours = np.array([plane.mean() for plane in planes])
        want, got = rgb_of(colour.astype(float), WEIGHTS[matrix], full=full), rgb_of(ours, WEIGHTS[6], full=False)
        assert np.abs(want - got).max() * 255 < 3.5, (colour, want, got)


def test_frames_are_freed_without_a_collection():
    converter = Converter(64, Fraction(1))
    gc.collect()
    gc.disable()
    try:
        made = [converter(av.VideoFrame(192, 128, "yuv420p")) for _ in range(9)]
        living = [one for one in gc.get_objects() if type(one) is av.VideoFrame and one.width == 192]
    finally:
        gc.enable()
    assert len(made) == 9
    assert living == [converter.first] or living == []


def picture(matrix, *, full):
    """A frame of noise."""
    frame = av.VideoFrame(48, 32, "yuv420p")
    draw = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(draw.integers(16, 235, plane.buffer_size, np.uint8).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


@settings(max_examples=300)
@given(st.integers(16, 2000), st.integers(16, 2000), st.sampled_from([16, 64, 256]))
def test_sides_are_blocks_and_little_is_cut_off(width, height, short_side):
    fit = fitted(width, height, short_side)
    assert all(side % 16 == 0 and 0 < side <= whole for side, whole in zip(fit.stored, (width, height), strict=True))
    assert min(fit.stored) == min(short_side, width // 16 * 16, height // 16 * 16)
    assert all(0 <= whole - side < 16 for side, whole in zip(fit.stored, fit.scaled, strict=True))
    scale = min(fit.scaled) / min(width, height)
    assert all(abs(side * scale - whole) <= 2 for side, whole in zip((width, height), fit.scaled, strict=True))


def test_the_middle_is_stored_and_not_squeezed():
    ramp = np.arange(80)
    frame = av.VideoFrame.from_ndarray(
        np.broadcast_to(16 + ramp[:74, None], (74, 48))[..., None].repeat(3, 2).astype(np.uint8)
    )
    frame = frame.reformat(format="yuv420p")
    stored = pixels(Converter(48, Fraction(1))(frame))
    assert stored == [
        np.array(plane)[cut : cut + rows].tolist()
        for plane, cut, rows in zip(pixels(frame), (4, 2, 2), (64, 32, 32), strict=True)
    ]


def pixels(frame):
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].tolist()
        for plane in frame.planes
    ]


def test_a_frame_that_the_filters_would_only_copy_is_not_copied(monkeypatch):
    for matrix in (2, 5, 6):  # unknown, which is BT.601 for a small frame, and both numbers of BT.601
        frame = picture(matrix, full=False)
        assert Converter(32, Fraction(1))(frame) is frame
        with monkeypatch.context() as patched:
            patched.setattr(convert, "is_converted", lambda frame, size: False)
            copied = Converter(32, Fraction(1))(frame)
        assert copied is not frame
        assert pixels(copied) == pixels(frame)
    for other, side in ((picture(1, full=False), 32), (picture(6, full=True), 32), (picture(6, full=False), 16)):
        assert Converter(side, Fraction(1))(other) is not other
