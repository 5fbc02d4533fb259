"""Decoding at reduced resolution equals decoding in full, within a stated tolerance, and crops are resized exactly."""

import io
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.modalities.image.decode import ImageError, decode_image, extend_to_grid, reduction, show
from maskstream.pipelines.modalities.image.resize import compute_bicubic_taps, resize_crop
from maskstream.shards.errors import DataError


@cache
def photo(width, height, seed=0):
    """A synthetic photograph, with less detail at finer scales: RGB uint8 (height, width, 3), read-only."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for side in (2, 4, 8, 16, 32, 64, 128):
        noise = rng.normal(size=(side, side, 3))
        pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / side**0.7
    pixels -= pixels.min()
    made = (pixels * 255 / pixels.max()).astype(np.uint8)
    made.setflags(write=False)
    return made


def jpeg(pixels, *options):
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95, *options])
    assert ok
    return data.tobytes()


def shown(data, width, height, crop, n, size):
    out = np.zeros((size, size, 3), np.uint8)
    show(decode_image(data, width, height, n), crop, n, out)
    return out


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize(("width", "height"), [(1200, 900), (1203, 897)])
@pytest.mark.parametrize("flip", [False, True])
def test_reduced_decoding_is_close_to_full_decoding(n, width, height, flip):
    # The tolerance in levels of 255: without a further resize a mean below 1 and a 99th percentile of at most 4; with
    # a further resize of the reduced image, below 3 and at most 10.
    data = jpeg(photo(width, height))
    for x, y, side in ((0, 0, 880), (13, 7, 640), (310, 250, 600), (width - 600, height - 600, 600)):
        crop = extend_to_grid(Crop(x=x, y=y, width=side, height=side, flip=flip), n, width, height)
        for size, mean, most in ((crop.width // n, 1, 4), (600 // n, 3, 10)):
            square = Crop(x=crop.x, y=crop.y, width=crop.width // n * n, height=crop.width // n * n, flip=flip)
            full, reduced = (shown(data, width, height, square, by, size).astype(int) for by in (1, n))
            difference = np.abs(full - reduced)
            assert difference.mean() < mean
            assert np.quantile(difference, 0.99) <= most


def test_the_reduction_is_the_largest_that_keeps_enough_pixels():
    crops = [Crop(x=0, y=0, width=900, height=500), Crop(x=0, y=0, width=450, height=460)]
    assert [reduction(crops, size, size) for size in (451, 450, 226, 225, 224, 112, 57, 56)] == [1, 1, 1, 2, 2, 4, 4, 8]
    assert reduction(crops[:1], 250, 250) == 2


def test_crops_grow_to_the_grid_by_less_than_a_pixel_of_the_output():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(100, 400, 2).tolist()
        w, h = int(rng.integers(8, width + 1)), int(rng.integers(8, height + 1))
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        n = int(rng.choice([1, 2, 4, 8]))
        crop = extend_to_grid(Crop(x=x, y=y, width=w, height=h, flip=True), n, width, height)
        assert crop.flip
        assert crop.x % n == crop.y % n == 0
        assert 0 <= x - crop.x < n
        assert 0 <= y - crop.y < n
        right, bottom = crop.x + crop.width, crop.y + crop.height
        assert x + w <= right < x + w + n
        assert y + h <= bottom < y + h + n
        assert right in {width, right // n * n}
        assert bottom in {height, bottom // n * n}
        assert right <= width
        assert bottom <= height


def test_full_decoding_gives_the_pixels_of_the_crop():
    pixels = photo(90, 70)
    ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert ok
    crop = Crop(x=11, y=5, width=32, height=32)
    np.testing.assert_array_equal(shown(data.tobytes(), 90, 70, crop, 1, 32), pixels[5:37, 11:43])
    flipped = Crop(x=11, y=5, width=32, height=32, flip=True)
    np.testing.assert_array_equal(shown(data.tobytes(), 90, 70, flipped, 1, 32), pixels[5:37, 11:43][:, ::-1])


def antialiased(pixels, size, flip):
    """torch's bicubic resize with antialiasing, in float64: (size, size, 3), limited to 0 to 255."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].double()
    made = torch.nn.functional.interpolate(planes, (size, size), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    return made.flip(1 if flip else ()).clamp(0, 255).numpy()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 90), (31, 33), (90, 2), (97, 61), (640, 300), (2500, 40)])
def test_crops_are_resized_as_an_exact_bicubic_resize_does(width, height):
    rng = np.random.default_rng(width)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 3] = rng.choice([0, 255], (height, width // 3, 1))
    for size in (1, 2, 7, 8, 30, 64):
        w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
        boxes = [(0, 0, width, height), (int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)]
        for x, y, wide, high in boxes:
            flip = bool(rng.integers(2))
            memory = np.full(3 * size * size + 128, 77, np.uint8)
            out = memory[64:-64].reshape(size, size, 3)
            show(pixels, Crop(x=x, y=y, width=wide, height=high, flip=flip), 1, out)
            difference = np.abs(out - antialiased(pixels[y : y + high, x : x + wide], size, flip))
            assert difference.max() < (0.65 if max(wide, high) <= 16 * size else 1.5)
            assert (memory[:64] == 77).all()
            assert (memory[-64:] == 77).all()


def mixed(values, axis, taps, rounded):
    """Weighted sums of integers along an axis, over 2 ** rounded."""
    first, weights = taps
    at = np.minimum(first[:, None] + np.arange(weights.shape[1]), values.shape[axis] - 1)
    table = np.zeros((len(first), values.shape[axis]), np.int64)
    np.add.at(table, (np.arange(len(first))[:, None], at), weights)
    return np.moveaxis(np.tensordot(table, values, (1, axis)), 0, axis) + (1 << rounded - 1) >> rounded


@pytest.mark.parametrize("seed", range(12))
def test_pixels_are_those_of_sums_of_integers(seed):
    draw = np.random.default_rng(seed)
    height, width, rows, columns = draw.integers(1, 160, 4).tolist()
    pixels = draw.choice([0, 9, 255], (height, width, 3)).astype(np.uint8)
    w, h = int(draw.integers(1, width + 1)), int(draw.integers(1, height + 1))
    x, y = int(draw.integers(width - w + 1)), int(draw.integers(height - h + 1))
    out = np.empty((rows, columns, 3), np.uint8)
    resize_crop(pixels, x, y, w, h, seed % 2 == 0, out)
    half = mixed(pixels[y : y + h, x : x + w].astype(np.int64), 0, compute_bicubic_taps(h, rows), 8)
    expected = mixed(half, 1, compute_bicubic_taps(w, columns), 20).clip(0, 255)
    np.testing.assert_array_equal(out, expected[:, ::-1] if seed % 2 == 0 else expected)


def test_crops_are_resized_as_pillow_does():
    pixels = photo(320, 240)
    for x, y, w, h in ((0, 0, 320, 240), (40, 20, 200, 150), (100, 60, 90, 70)):
        out = np.empty((112, 112, 3), np.uint8)
        show(pixels, Crop(x=x, y=y, width=w, height=h), 1, out)
        wanted = Image.fromarray(pixels).resize((112, 112), Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
        difference = np.abs(out.astype(int) - np.asarray(wanted))
        assert difference.mean() < 0.3
        assert difference.max() <= 2


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_flat_pictures_stay_as_they_are(level):
    pixels = np.full((700, 900, 3), level, np.uint8)
    for size in (5, 16, 224):
        out = np.empty((size, size, 3), np.uint8)
        show(pixels, Crop(x=3, y=2, width=890, height=690), 1, out)
        assert (out == level).all()


def test_crops_beyond_the_image_are_refused():
    pixels, out = photo(64, 48), np.empty((16, 16, 3), np.uint8)
    for crop in ((0, 0, 65, 48), (0, 0, 64, 49), (-1, 0, 9, 9), (0, -1, 9, 9), (4, 4, 0, 8), (60, 40, 5, 8)):
        with pytest.raises(ValueError, match="is not within an image of 64x48 pixels; clip it to the image"):
            show(pixels, Crop(x=crop[0], y=crop[1], width=crop[2], height=crop[3]), 1, out)


@pytest.mark.parametrize("form", ["ppm", "pgm"])
def test_stored_pixels_are_refused_where_their_header_says_others(form):
    pixels = photo(64, 48) if form == "ppm" else photo(64, 48)[..., 0]
    data = cv2.imencode(f".{form}", pixels)[1].tobytes()
    assert decode_image(data, 64, 48).shape == (48, 64, 3)
    for wrong in (data[:-1], data + b"0", data[:8], data.replace(b"\n255\n", b"\n65535\n", 1), data[:2]):
        with pytest.raises(DataError, match=r"has \d+ bytes, but its header|is not an 8-bit PPM or PGM file"):
            decode_image(wrong, 64, 48)
    with pytest.raises(DataError, match="has 64x48 pixels, not 48x64"):
        decode_image(data, 48, 64)
    with pytest.raises(ImageError, match="has a JPEG name but contains Netpbm"):
        decode_image(data, 64, 48, 2)


def saved(pixels, form, **options):
    """A picture of any kind as Pillow writes it."""
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, form, **options)
    return file.getvalue()


def odd_pictures():
    """Pictures of 64 x 48 pixels that are not 8-bit RGB, or say more than their pixels."""
    rgb = Image.fromarray(photo(64, 48))
    grey16 = (np.asarray(rgb.convert("L")).astype(np.uint16) * 257).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    return {
        "cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        "grey": saved(rgb.convert("L"), "JPEG"),
        "progressive": saved(rgb, "JPEG", progressive=True),
        "turned": saved(rgb, "JPEG", exif=turned),
        "half sampling": saved(rgb, "JPEG", subsampling="4:2:2"),
        "16 bits": saved(grey16, "PNG"),
        "palette": saved(rgb.quantize(16), "PNG"),
        "alpha": saved(rgb.convert("RGBA"), "PNG"),
        "one bit": saved(rgb.convert("1"), "PNG"),
        "alpha in webp": saved(rgb.convert("RGBA"), "WEBP", lossless=True),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_pictures_of_every_kind_have_the_pixels_that_opencv_gives_in_its_own_order(name):
    data = odd_pictures()[name]
    for n, flag in {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 8: cv2.IMREAD_REDUCED_COLOR_8}.items():
        wanted = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        np.testing.assert_array_equal(decode_image(data, 64, 48, n), wanted[..., ::-1])


def test_grey_images_have_three_equal_channels():
    ok, data = cv2.imencode(".jpg", photo(64, 64)[..., 0])
    assert ok
    out = shown(data.tobytes(), 64, 64, Crop(x=0, y=0, width=64, height=64), 2, 32)
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    np.testing.assert_array_equal(out[..., 0], out[..., 2])


def test_broken_images_and_wrong_sizes_are_refused():
    data = jpeg(photo(64, 48))
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(data[: len(data) // 2], 64, 48)
    with pytest.raises(DataError, match="has 64x48 pixels, not 64x50"):
        decode_image(data, 64, 50, 2)
