"""Planes to pixels: near what float64 gives, whatever memory lies around the crop, and nothing outside it is read."""

import ctypes
import mmap
import os
import platform
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode import pixels
from maskstream.pipelines.decode.cpu import HALF_CHROMA, build_rgb_matrix, compute_colour_numbers, to_rgb
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, normalised

COLOURS = [("bt601", False), ("bt709", False), ("bt601", True), ("bt709", True)]


def share_of(source, size, averages):
    """How much each output takes of each input, float64 (size, source)."""
    places = np.arange(size)
    if averages:
        ends = np.minimum((places[:, None] + 1) * source / size, np.arange(source) + 1)
        return np.maximum(ends - np.maximum(places[:, None] * source / size, np.arange(source)), 0) * size / source
    centres = np.clip((places + 0.5) * source / size - 0.5, 0, source - 1)
    return np.maximum(1 - np.abs(centres[:, None] - np.arange(source)), 0)


def resized(plane, rows, columns):
    high, wide = plane.shape
    areas = high >= 2 * rows or wide >= 2 * columns
    down, across = share_of(high, rows, areas and high >= rows), share_of(wide, columns, areas and wide >= columns)
    return np.floor(down @ plane @ across.T + 0.5)


def reference(planes, crop, size, colours):
    """The pixels in float64, whose resized planes are rounded to levels."""
    rows, columns = size
    y, x, high, wide = crop.y, crop.x, crop.height, crop.width
    half = colours == HALF_CHROMA and rows % 2 == 0 and columns % 2 == 0
    luma = resized(planes[0][y : y + high, x : x + wide], rows, columns)
    chroma = []
    for plane in planes[1:]:
        part = plane[y // 2 : (y + high + 1) // 2, x // 2 : (x + wide + 1) // 2]
        whole = resized(part, rows // 2, columns // 2) if half else resized(part, rows, columns)
        chroma.append(whole.repeat(2, 0).repeat(2, 1) if half else whole)
    black = 0 if colours[1] else 16
    made = np.stack([np.maximum(luma, black), *chroma, np.ones_like(luma)], axis=-1) @ build_rgb_matrix(*colours).T
    made = np.floor(np.clip(made, 0, 255) + 0.5)
    return made[:, ::-1] if crop.flip else made


def planes_of(draw, width, height, smooth=True):
    planes = []
    for shape in ((height, width), *[(-(-height // 2), -(-width // 2))] * 2):
        noise = draw.integers(0, 256, shape).astype(np.uint8)
        planes.append(cv2.GaussianBlur(noise, (0, 0), 1.5) if smooth else noise)
    return planes


def convert(planes, crop, size, colours=HALF_CHROMA):
    out = np.full((2, *size, 3), 7, dtype=np.uint8)
    table = np.array([(1, *(p.ctypes.data for p in planes), *(p.strides[0] for p in planes))])
    half = colours == HALF_CHROMA and size[0] % 2 == 0 and size[1] % 2 == 0
    box = (crop.x, crop.y, crop.width, crop.height)
    pixels.write_rgb(table, box, crop.flip, compute_colour_numbers(*colours), half, out)
    assert (out[0] == 7).all()
    return out[1]


def drawn_crop(draw, width, height):
    wide, high = (int(draw.integers(1, side // 2 + 1)) * 2 for side in (width, height))
    x, y = (int(draw.integers(0, (side - own) // 2 + 1)) * 2 for side, own in ((width, wide), (height, high)))
    return Crop(x=x, y=y, width=wide, height=high, flip=bool(draw.integers(2)))


@pytest.mark.parametrize("seed", range(40))
def test_pixels_are_those_of_float64(seed):
    draw = np.random.default_rng(seed)
    width, height, rows, columns = (int(side) for side in draw.integers(2, 130, 4))
    if seed % 4 == 0:
        rows = columns = 2 * int(draw.integers(1, 20))
    planes, colours = planes_of(draw, width, height), COLOURS[seed // 2 % 4]
    crop = drawn_crop(draw, width, height)
    found, expected = convert(planes, crop, (rows, columns), colours), reference(planes, crop, (rows, columns), colours)
    difference = np.abs(found - expected)
    assert difference.max() <= 4, "a level of chroma, rounded the other way, is two of blue"
    assert difference.mean() < 0.25


def test_planes_that_keep_their_size_are_only_converted():
    draw = np.random.default_rng(0)
    for colours in COLOURS[1:]:
        planes = planes_of(draw, 64, 48, smooth=False)
        planes[1:] = [np.full((24, 32), 128, np.uint8)] * 2
        found = convert(planes, Crop(x=0, y=0, width=64, height=48), (48, 64), colours)
        assert np.abs(found - reference(planes, Crop(x=0, y=0, width=64, height=48), (48, 64), colours)).max() <= 1
        assert (found[..., 0] == found[..., 1]).all()
        assert (found[..., 0] == found[..., 2]).all()


def test_all_levels_are_converted_within_one():
    for colours in COLOURS:
        levels = np.stack(np.meshgrid(*[np.arange(0, 256, 3)] * 3, indexing="ij"), axis=-1).reshape(1, -1, 3)
        channels = [np.ascontiguousarray(levels[..., n], dtype=np.uint8) for n in range(3)]
        padded = [np.pad(one, ((0, 0), (0, -one.shape[1] % 16))) for one in channels]
        out = np.empty((*levels.shape[:2], 3), np.uint8)
        pixels.convert(*padded, compute_colour_numbers(*colours), False, out)
        exact = np.maximum(levels, [0 if colours[1] else 16, 0, 0]) @ build_rgb_matrix(*colours)[:, :3].T
        exact = (exact + build_rgb_matrix(*colours)[:, 3]).clip(0, 255)
        assert np.abs(out - exact).max() < 0.6


@pytest.mark.parametrize("size", [(32, 32), (17, 33), (12, 9)])
def test_a_flip_mirrors_the_pixels(size):
    draw = np.random.default_rng(1)
    planes = planes_of(draw, 70, 50, smooth=False)
    plain, flipped = (convert(planes, Crop(x=4, y=2, width=50, height=40, flip=flip), size) for flip in (False, True))
    assert np.array_equal(plain[:, ::-1], flipped)


@pytest.mark.parametrize("size", [(32, 32), (17, 33), (7, 9)])
def test_what_is_around_the_crop_has_no_part_in_it(size):
    draw = np.random.default_rng(2)
    plain = planes_of(draw, 64, 48, smooth=False)
    crop = Crop(x=10, y=6, width=42, height=30, flip=True)
    expected = convert(plain, crop, size)
    for level in (0, 255):
        wider = []
        for n, plane in enumerate(plain):
            step = 2 if n else 1
            around = np.full((plane.shape[0] + 3, plane.shape[1] + 13), level, np.uint8)  # lines of another length
            part = np.s_[crop.y // step : (crop.y + 30) // step, crop.x // step : (crop.x + 42) // step]
            around[part] = plane[part]
            wider.append(around)
        assert np.array_equal(convert(wider, crop, size), expected)


def guarded(plane):
    """The plane at the end of memory behind which every access ends the process; and what keeps it."""
    page = mmap.PAGESIZE
    pages = -(-plane.nbytes // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + pages * page), ctypes.c_size_t(page), 0) == 0
    own = np.ndarray(plane.shape, np.uint8, memory, pages * page - plane.nbytes)
    own[...] = plane
    return own


def test_nothing_behind_a_plane_is_read():
    draw = np.random.default_rng(3)
    for width, height in ((34, 18), (2, 2), (63, 31), (130, 66)):
        planes = planes_of(draw, width, height)
        whole = Crop(x=0, y=0, width=width & ~1, height=height & ~1)
        for size in ((16, 16), (40, 21)):
            expected = convert(planes, whole, size)
            assert np.array_equal(convert([guarded(plane) for plane in planes], whole, size), expected)


def test_a_crop_outside_the_frame_is_refused():
    frame = av.VideoFrame(32, 16, "yuv420p")
    out = np.empty((1, 8, 8, 3), np.uint8)
    for crop in (
        Crop(x=2, y=0, width=32, height=16),
        Crop(x=0, y=-2, width=8, height=8),
        Crop(x=0, y=0, width=0, height=2),
    ):
        with pytest.raises(ValueError, match="not within a frame of 32x16"):
            to_rgb([frame], crop, (8, 8), out)


def test_frames_of_other_formats_and_colours_are_converted_each_as_it_says():
    draw = np.random.default_rng(4)
    picture = cv2.GaussianBlur(draw.integers(0, 256, (48, 64, 3)).astype(np.uint8), (0, 0), 2)
    plain = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frames = []
    for pixel_format, (standard, full) in zip(("yuv420p", "yuv420p10le", "yuvj420p", "yuv444p"), COLOURS, strict=True):
        space, span = ("ITU709" if standard == "bt709" else "ITU601"), ("JPEG" if full else "MPEG")
        made = plain.reformat(format=pixel_format, dst_colorspace=space, dst_color_range=span)
        made.colorspace, made.color_range = (1 if standard == "bt709" else 5), (2 if full else 1)
        frames.append(made)
    crop, out = Crop(x=0, y=0, width=64, height=48), np.empty((5, 48, 64, 3), np.uint8)
    to_rgb([*frames, frames[1]], crop, (48, 64), out)
    for one in out:
        assert np.abs(one.astype(int) - picture).mean() < 6
    assert np.array_equal(out[4], out[1])


def digest():
    """Of the pixels of several sizes, of means and of areas."""
    draw, made = np.random.default_rng(5), sha256()
    for width, height, size in ((64, 48, (48, 64)), (130, 66, (32, 32)), (66, 130, (21, 40)), (34, 18, (50, 50))):
        planes = planes_of(draw, width, height, smooth=False)
        for colours in COLOURS:
            crop = Crop(x=2, y=2, width=width - 2, height=height - 4, flip=colours[1])
            made.update(convert(planes, crop, size, colours).tobytes())
    return made.hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the processor is one of x86")
def test_the_oldest_processors_make_the_same_pixels(tmp_path):
    """They have no instruction that picks bytes, and none of AVX."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_pixels as t; print(t.digest())"
    other = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **other}, capture_output=True, text=True)
    assert done.stdout.strip() == digest(), done.stderr


@pytest.mark.parametrize("colours", [HALF_CHROMA, ("bt709", True)])
@pytest.mark.parametrize(
    ("frame", "patch", "grid"),
    [
        ((340, 256), 16, (14, 14)),  # as in a VideoMAE
        ((67, 53), 7, (5, 4)),  # odd frames, patches and sizes: chroma of a token begins between two pixels
        ((67, 53), 7, (6, 4)),  # even sizes: rows of chroma belong to two tokens
        ((320, 240), 14, (4, 6)),  # averages
        ((50, 200), 20, (3, 5)),  # enlarged in one direction
        ((6, 4), 1, (3, 5)),
    ],
)
def test_chosen_tokens_have_the_pixels_of_whole_frames(colours, frame, patch, grid):
    draw = np.random.default_rng([patch, *grid])
    size, tubelet = (grid[0] * patch, grid[1] * patch), 2
    for _ in range(12):
        planes, crop = [planes_of(draw, *frame) for _ in range(4)], drawn_crop(draw, *frame)
        table = np.array(
            [(t, *(p.ctypes.data for p in own), *(p.strides[0] for p in own)) for t, own in enumerate(planes)]
        )
        half = colours == HALF_CHROMA and size[0] % 2 == 0 and size[1] % 2 == 0
        box, numbers = (crop.x, crop.y, crop.width, crop.height), compute_colour_numbers(*colours)
        whole = np.empty((4, *size, 3), dtype=np.uint8)
        pixels.write_rgb(table, box, crop.flip, numbers, half, whole)
        tokens = whole.reshape(4 // tubelet, tubelet, grid[0], patch, grid[1], patch, 3).transpose(0, 2, 4, 1, 3, 5, 6)
        tokens = tokens.reshape(-1, tubelet, patch, 3 * patch)
        for share in (0, 0.1, 0.5, 1):
            chosen = np.flatnonzero(draw.random(len(tokens)) < share)
            out = np.full((len(chosen) + 1, *tokens.shape[1:]), 7, dtype=np.uint8)
            pixels.write_tokens(table, box, crop.flip, numbers, half, grid, chosen, out[:-1])
            assert (out[:-1] == tokens[chosen]).all()
            assert (out[-1] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_floats_have_the_bits_of_torch_arithmetic(dtype):
    levels = torch.arange(256, dtype=torch.uint8)[torch.randperm(768, generator=torch.manual_seed(0)) % 256]
    images = levels.view(2, 8, 16, 3)
    for mean, std in [(IMAGENET_MEAN, IMAGENET_STD), ((0.5, 0.0, 1.0), (1.0, 0.5, 3.0))]:
        m, s = (torch.tensor(of, dtype=dtype).view(3, 1, 1) for of in (mean, std))
        expected = images.movedim(-1, 1).to(dtype).div(255.0).sub(m).div(s)
        assert torch.equal(normalised(images, mean, std, dtype), expected)
