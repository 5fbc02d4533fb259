"""The signals of a frame are what their definitions say, computed here by numpy and OpenCV in other ways."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskstream.preprocess.curate.looks import average_luma, look

Floats = npt.NDArray[np.float64]
UInt8s = npt.NDArray[np.uint8]

SIZES = [(1, 1), (2, 9), (28, 28), (129, 140), (213, 137), (427, 640), (1100, 1301)]


def scene(height: int, width: int, seed: int = 0) -> UInt8s:
    """Coloured blobs, short lines each 16 rows, and noise, uint8 (H, W, 3)."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (max(height // 40, 1), max(width // 40, 1), 3)).astype(np.uint8)
    picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    picture[::16, : width // 2] += 60
    return np.clip(picture + draw.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def luma_of(pixels: UInt8s) -> Floats:
    """BT.601's luma, averaged over whole pixels to a short side of 256 or less."""
    times = -(-min(pixels.shape[:2]) // 256)
    height, width = (side // times for side in pixels.shape[:2])
    luma = pixels[: height * times, : width * times] @ np.array([0.114, 0.587, 0.299])
    return luma.reshape(height, times, width, times).mean((1, 3))


def bands_of(luma: UInt8s) -> list[UInt8s]:
    """Half of the rows of a larger frame, all of a smaller one."""
    if min(luma.shape) <= 128:
        return [luma]
    starts = [min(band * 8 + int(band * 0.618 % 1 * 8), len(luma) - 4) for band in range(len(luma) // 8)]
    return [luma[start : start + 4] for start in starts]


@pytest.mark.parametrize("size", SIZES)
def test_luma_is_averaged_over_whole_pixels(size: tuple[int, int]) -> None:
    pixels = scene(*size)
    wanted, found = luma_of(pixels), average_luma(pixels)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1.4  # its weights are parts of 128, then it is rounded
    assert abs(float(found.mean() - wanted.mean())) < 0.9
    grey = np.repeat(pixels[:, :, :1], 3, axis=2)
    assert np.abs(average_luma(grey) - luma_of(grey)).max() < 0.51


@pytest.mark.parametrize("size", SIZES)
def test_signals_are_of_the_rows_that_are_looked_at(size: tuple[int, int]) -> None:
    pixels = scene(*size)
    found, luma = look(pixels), average_luma(pixels)
    bands = bands_of(luma)
    levels = np.concatenate(bands).astype(np.float64)
    assert found["brightness"] == pytest.approx(levels.mean() / 255)
    assert found["contrast"] == pytest.approx(levels.std() / 255, abs=1e-9)
    edges = [cv2.Laplacian(band, cv2.CV_64F)[1:-1, 1:-1].reshape(-1) for band in bands]
    assert found["sharpness"] == pytest.approx(np.concatenate(edges).var() if sum(map(len, edges)) else 0, abs=1e-6)
    counted = np.concatenate([band if len(bands) == 1 else band[:1] for band in bands]) // 4
    shares = np.unique(counted, return_counts=True)[1] / counted.size
    assert found["entropy"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-9)
    step = -(-min(size) // 32)
    some = pixels[::step, ::step].astype(np.float64)
    most = some.max(2)
    wanted = np.divide(most - some.min(2), most, out=np.zeros_like(most), where=most > 0).mean()
    assert found["saturation"] == pytest.approx(wanted, abs=0.003)
    assert found["borders"] == found["dark"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_the_rows_says_what_all_say(seed: int) -> None:
    pixels = scene(427, 640, seed)
    found, luma = look(pixels), luma_of(pixels).round().astype(np.uint8)
    assert found["brightness"] == pytest.approx(luma.mean() / 255, abs=0.008)
    assert found["contrast"] == pytest.approx(luma.std() / 255, abs=0.008)
    assert found["sharpness"] == pytest.approx(cv2.Laplacian(luma, cv2.CV_64F).var(), rel=0.25)
    shares = np.bincount(luma.reshape(-1) // 4) / luma.size
    assert found["entropy"] == pytest.approx(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum(), abs=0.08)
    saturation = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)[:, :, 1].mean() / 255
    assert found["saturation"] == pytest.approx(saturation, abs=0.02)


@pytest.mark.parametrize("size", [(60, 100), (427, 640)])
def test_borders_are_dark_rows_and_columns(size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.full((height, width, 3), 200, np.uint8)
    pixels[: height // 10] = pixels[:, -width // 4 :] = 3
    luma = average_luma(pixels)
    rows, columns = (luma.max(axis) >= 24 for axis in (1, 0))
    assert look(pixels)["borders"] == pytest.approx(1 - rows.mean() * columns.mean())
    pixels[0, 0] = 255
    assert look(pixels)["borders"] == pytest.approx(1 - columns.mean())
    pixels[6 * height // 427 // 2 * 2, -1] = 255  # in a row that only borders look at
    assert look(pixels)["borders"] == 0


def test_dark_frames_have_one_light_pixel_in_a_hundred_at_most() -> None:
    pixels = np.full((100, 100, 3), 10, np.uint8)
    pixels[50, :90] = 200
    assert (look(pixels)["dark"], look(pixels)["borders"] < 1) == (1, True)
    pixels[60, :20] = 200
    assert look(pixels)["dark"] == 0
    assert look(np.zeros((300, 300, 3), np.uint8)) == {
        **dict.fromkeys(("brightness", "contrast", "saturation", "entropy", "sharpness"), 0),
        "borders": 1,
        "dark": 1,
    }


def test_parts_and_pixels_that_cannot_be_written_are_the_same() -> None:
    pixels = scene(300, 500)
    wanted = look(pixels[10:290, 30:400].copy())
    frozen = np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape)
    assert look(pixels[10:290, 30:400]) == wanted
    assert look(frozen) == look(pixels)
