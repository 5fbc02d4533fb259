"""Decoding at reduced resolution equals decoding in full, within a stated tolerance."""

import cv2
import numpy as np
import pytest

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.modalities.image.decode import ImageError, decode_image, on_grid, reduction, show
from maskstream.shards.errors import DataError


def photo(width, height, seed=0):
    """A synthetic photograph, with less detail at finer scales: RGB uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for side in (2, 4, 8, 16, 32, 64, 128):
        noise = rng.normal(size=(side, side, 3))
        pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / side**0.7
    pixels -= pixels.min()
    return (pixels * 255 / pixels.max()).astype(np.uint8)


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
        crop = on_grid(Crop(x=x, y=y, width=side, height=side, flip=flip), n, width, height)
        for size, mean, most in ((crop.width // n, 1, 4), (600 // n, 3, 10)):
            square = Crop(x=crop.x, y=crop.y, width=crop.width // n * n, height=crop.width // n * n, flip=flip)
            full, reduced = (shown(data, width, height, square, by, size).astype(int) for by in (1, n))
            difference = np.abs(full - reduced)
            assert difference.mean() < mean
            assert np.quantile(difference, 0.99) <= most


def test_the_reduction_is_the_largest_that_keeps_enough_pixels():
    crops = [Crop(x=0, y=0, width=900, height=500), Crop(x=0, y=0, width=450, height=460)]
    assert [reduction(crops, size) for size in (451, 450, 226, 225, 224, 112, 57, 56)] == [1, 1, 1, 2, 2, 4, 4, 8]
    assert reduction(crops[:1], 250) == 2


def test_crops_grow_to_the_grid_by_less_than_a_pixel_of_the_output():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(100, 400, 2).tolist()
        w, h = int(rng.integers(8, width + 1)), int(rng.integers(8, height + 1))
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        n = int(rng.choice([1, 2, 4, 8]))
        crop = on_grid(Crop(x=x, y=y, width=w, height=h, flip=True), n, width, height)
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
