"""Of near-duplicates the original stays, whatever was done to the copy and whichever key comes first."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from maskstream.preprocess.curate import curate
from maskstream.preprocess.curate.originals import Look, compare, read_luma_steps

from .test_curation import clips_of, jpeg, with_logo, write_images

UInt8s = npt.NDArray[np.uint8]
COUNT = 8


def photograph(seed: int, height: int = 216, width: int = 288) -> UInt8s:
    """Colours whose amplitudes fall with the frequency, as those of photographs do, and some edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    shades = [np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, (height, width))) / (frequency + 0.004)).real for _ in range(3)]
    made = np.stack([shades[0] + 0.4 * one for one in shades], 2)
    made = 34 * (made - made.mean()) / made.std() + 118
    for _ in range(5):
        x, y = (int(rng.integers(0, side)) for side in (width, height))
        cv2.circle(made, (x, y), int(rng.integers(10, 40)), rng.uniform(60, 180, 3).tolist(), -1)
    return np.clip(made + rng.normal(0, 2, made.shape), 0, 255).astype(np.uint8)


def toned(image: UInt8s, gain: float, offset: float) -> UInt8s:
    return np.clip(np.rint(image * np.float32(gain) + offset), 0, 255).astype(np.uint8)


def resized(image: UInt8s, factor: float) -> UInt8s:
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


KINDS: dict[str, tuple[Callable[[UInt8s], UInt8s], int]] = {
    "encoded at lower quality": (lambda one: one, 30),
    "encoded at higher quality": (lambda one: one, 95),
    "logo": (with_logo, 85),
    "brighter": (lambda one: toned(one, 1.15, 8), 85),
    "darker": (lambda one: toned(one, 0.8, -5), 85),
    "less contrast": (lambda one: toned(one, 0.75, 32), 92),
    "cropped": (lambda one: np.ascontiguousarray(one[9:-9, 12:-12]), 92),
    "scaled down": (lambda one: resized(one, 0.5), 92),
    "scaled up": (lambda one: resized(one, 1.5), 85),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_original_image_stays(tmp_path: Path, kind: str) -> None:
    change, quality = KINDS[kind]
    images = []
    for number in range(COUNT):
        original = jpeg(photograph(number), 85)
        copy = change(np.asarray(cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_COLOR), np.uint8))
        images.append((f"{number:02d}/m", original, (216, 288)))
        images.append((f"{number:02d}/{'az'[number % 2]}", jpeg(copy, quality), copy.shape[:2]))
    found = curate(write_images(tmp_path / "split", sorted(images)), copies=True, max_removed=1, dry_run=True)
    kept = [gone.of for gone in found.gone]
    assert len(kept) >= COUNT - 1
    assert sum(key.endswith("/m") for key in kept) >= 0.95 * len(kept)
    assert all(found.measures.manifest.key(gone.place)[:2] == gone.of[:2] for gone in found.gone)


CLIP_KINDS: dict[str, tuple[Callable[[UInt8s], UInt8s], int]] = {
    "logo": (with_logo, 20),
    "encoded at lower quality": (lambda one: one, 32),
    "cropped": (lambda one: np.ascontiguousarray(one[14:-14, 18:-18]), 18),
    "scaled down": (lambda one: resized(one, 0.5), 18),
    "scaled up": (lambda one: resized(one, 1.4), 18),
}


@pytest.mark.parametrize("kind", list(CLIP_KINDS))
def test_the_original_clip_stays(tmp_path: Path, kind: str) -> None:
    change, crf = CLIP_KINDS[kind]
    made = {}
    for seed in range(2):
        whole = photograph(seed, 260, 360)
        frames = [np.ascontiguousarray(whole[at // 4 : at // 4 + 240, at : at + 320]) for at in range(24)]
        made |= {f"{seed}/m": (frames, 20), f"{seed}/{'az'[seed % 2]}": ([change(one) for one in frames], crf)}
    found = curate(clips_of(tmp_path / "clips", made), copies=True, max_removed=1, dry_run=True)
    assert sorted(gone.of for gone in found.gone) == [f"{seed}/m" for seed in range(2)]


@pytest.mark.parametrize(("gain", "offset"), [(0.8, -5), (0.75, 32)])
def test_gaps_and_spikes_tell_a_copy_whose_quantisation_is_unknown(gain: float, offset: float) -> None:
    kept = 0
    for seed in range(COUNT):
        original = webp(photograph(seed), 90)
        decoded = cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_COLOR)
        copy = webp(toned(np.asarray(decoded, np.uint8), gain, offset), 75)
        kept += compare(Look.from_image(original, 1), Look.from_image(copy, 1)) > 0
    assert kept >= 0.9 * COUNT


def webp(image: UInt8s, quality: int) -> bytes:
    return bytes(cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1])


def test_a_signal_that_is_named_decides(tmp_path: Path) -> None:
    original = photograph(0)
    images = [("a", jpeg(original, 85), (216, 288)), ("b", jpeg(toned(original, 1.2, 0), 40), (216, 288))]
    split = write_images(tmp_path / "split", images)
    for best, key in ((None, "a"), ("brightness", "b")):
        (gone,) = curate(split, copies=True, best=best, dry_run=True).gone
        assert gone.of == key


def test_nothing_is_said_of_equal_and_of_mirrored_images() -> None:
    data = jpeg(photograph(1))
    one, mirrored = (Look.from_image(some, 1) for some in (data, jpeg(photograph(1)[:, ::-1].copy())))
    assert compare(one, Look.from_image(data, 1)) == 0
    assert compare(one, mirrored) == 0


@pytest.mark.parametrize("quality", [10, 75, 98])
def test_quantisation_steps_are_those_that_pillow_reads(quality: int) -> None:
    data = jpeg(photograph(2), quality)
    steps = read_luma_steps(data)
    assert steps is not None
    read = Image.open(io.BytesIO(data)).quantization[0]  # type: ignore[attr-defined]
    assert steps.reshape(-1).tolist() == list(read)
    assert read_luma_steps(data[:20]) is None
    png = bytes(cv2.imencode(".png", photograph(2))[1])
    assert np.all(read_luma_steps(png) == 1)
