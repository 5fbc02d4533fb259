"""Drawn clips of a picture that moves: constant speed, mirrored at the edges, the same each time."""

from __future__ import annotations

import struct
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest

from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.video.moving_fashion_mnist import BRIGHTEST, SPEEDS, MovingPicture, draw_clip, reflect_motion

OPAQUE = np.full((10, 6), 255, np.uint8)
MOVING = MovingPicture(frames=20, side=64, fps=10, seed=0)


def opacity(moving: MovingPicture, id: str) -> np.ndarray:
    """The share of white of each pixel, (frames, side, side), from the frames with and without the picture."""
    with_it, ground = (np.stack(moving.draw(one, id)).astype(float) for one in (OPAQUE, np.zeros_like(OPAQUE)))
    assert with_it.shape == (moving.frames, 64, 64, 3)
    return ((with_it - ground) / (255 - ground)).mean(axis=3)


def test_the_picture_keeps_its_speed_and_stays_inside() -> None:
    moving = replace(MOVING, frames=40)
    speeds, turns = [], 0
    y, x = np.mgrid[:64, :64]
    for n in range(8):
        white = opacity(moving, f"clip:{n}")
        mass = white.sum(axis=(1, 2))
        np.testing.assert_allclose(mass, OPAQUE.size, rtol=0.02)  # nothing leaves the frame
        centres = np.stack([(white * axis).sum(axis=(1, 2)) / mass for axis in (x, y)], axis=1)
        steps = np.abs(np.diff(centres, axis=0))
        usual = np.median(steps, axis=0)
        shorter = steps < usual - 0.1
        assert (steps < usual + 0.1).all()
        assert shorter.mean() < 0.2  # at an edge
        turns += int(shorter.sum())
        speeds.append(np.hypot(*usual))
    assert SPEEDS[0] - 0.1 < min(speeds) < max(speeds) < SPEEDS[1] + 0.1
    assert turns > 8


@pytest.mark.parametrize("velocity", [0.7, -3.2])
def test_bouncing_is_walking_with_a_turn_at_each_edge(velocity: float) -> None:
    place, found = 4.0, []
    own = velocity
    for _ in range(60):
        found.append(place)
        place += own
        if not 0 <= place <= 9:
            own, place = -own, (-place if place < 0 else 18 - place)
    free = 4 + velocity * np.arange(60)[:, None] * np.ones(2)
    np.testing.assert_allclose(reflect_motion(free, np.array((9, 9))), np.stack((found, found), axis=1), atol=1e-9)


def test_a_clip_is_a_function_of_seed_and_id() -> None:
    moving = replace(MOVING, frames=2)
    first = moving.draw(OPAQUE, "a")
    np.testing.assert_array_equal(moving.draw(OPAQUE, "a"), first)
    for other in (moving.draw(OPAQUE, "b"), replace(moving, seed=1).draw(OPAQUE, "a")):
        assert np.abs(np.stack(other).astype(int) - first).max() > 50
    clear = moving.draw(np.zeros_like(OPAQUE), "a")
    np.testing.assert_array_equal(clear[0], clear[1])  # the ground stands still
    assert clear[0].max() < BRIGHTEST
    assert clear[0].std(axis=(0, 1)).min() > 1


@pytest.fixture
def images(tmp_path: Path) -> Source:
    """Image 1 of a file of two, the first black and the second white."""
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">III", 2, 28, 28) + bytes(784) + bytes((255,)) * 784)
    meta = {"moving": asdict(MOVING)}
    return Source(id="images:1", path=path, window=(1, 2), meta=meta, made_by=draw_clip)


def test_a_clip_shows_what_is_drawn_and_is_the_same_each_time(images: Source, tmp_path: Path) -> None:
    encoder = VideoEncoder()
    encoded = encoder.encode(images)
    assert (encoded.meta["n_frames"], encoded.meta["width"], encoded.meta["fps"]) == (20, 64, 10.0)
    assert encoded.members["mp4"].data == encoder.encode(images).members["mp4"].data
    (tmp_path / "clip.mp4").write_bytes(encoded.members["mp4"].data)
    with av.open(str(tmp_path / "clip.mp4")) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    drawn = MOVING.draw(np.full((28, 28), 255, np.uint8), images.id)
    assert np.abs(np.stack(shown).astype(int) - drawn).mean() < 4


def test_an_image_that_a_file_has_not_is_a_reject(images: Source) -> None:
    with pytest.raises(RejectError, match="has 2 images, but no image 2"):
        VideoEncoder().encode(replace(images, window=(2, 3)))
    with pytest.raises(RejectError, match=r"has no window \(n, n \+ 1\)"):
        VideoEncoder().encode(replace(images, window=None))


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"fps": 0}, {"side": 60}])
def test_a_clip_that_cannot_be_drawn_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="side a multiple of 16"):
        replace(MOVING, **wrong)


def test_a_picture_needs_room_to_move() -> None:
    with pytest.raises(RejectError, match="has 28x32 pixels and cannot move in 32x32"):
        replace(MOVING, side=32).draw(np.zeros((32, 28), np.uint8), "a")
