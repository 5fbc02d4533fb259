"""The lines of model cards by themselves: files and arrays, turned and transparent pictures, and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image

from maskstream.pipelines import VideoClip
from maskstream.train.export.cards import clip, picture, sound
from maskstream.train.export.raw import RawPictures

from .raw_exports import spots, write_clip, write_sound

pytest.importorskip("soundfile")


@pytest.fixture
def draws():
    return np.random.default_rng(5)


def test_an_array_is_read_as_its_file(draws, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "SIZE", 32)
    pixels = spots(90, 41, draws)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = picture.read_pictures([tmp_path / "a.png", pixels, torch.tensor(pixels)])
    assert (found == found[0]).all()
    ours = RawPictures(32, ()).batch([str(tmp_path / "a.png")])
    assert np.array_equal(found[0], ours.image[0].numpy())


def test_turned_and_transparent_pictures_are_seen_as_they_are_shown(draws, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "SIZE", 16)
    stored, exif = Image.fromarray(spots(60, 20, draws)), Image.Exif()
    for turned, shown in (
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
        (3, Image.Transpose.ROTATE_180),
    ):
        exif[0x0112] = turned
        stored.save(tmp_path / "a.png", exif=exif)
        assert np.array_equal(
            picture.read_picture(tmp_path / "a.png"), picture.read_picture(np.asarray(stored.transpose(shown)))
        )
    Image.new("RGBA", (20, 16), (9, 9, 9, 0)).save(tmp_path / "b.png")
    assert (picture.read_picture(tmp_path / "b.png") == 255).all()


def test_what_is_no_picture_clip_or_sound_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a file or uint8 \(H, W, 3\), got float64 \(4, 4\)"):
        picture.read_picture(np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"a file or uint8 \(T, H, W, 3\), got uint8 \(4, 4, 3\)"):
        clip.read_clip(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="a file or a pair of samples and their rate, got a ndarray"):
        sound.read_waveform(np.zeros(9))
    Image.new("I;16", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="expected 8-bit greyscale or RGB"):
        picture.read_picture(tmp_path / "a.png")


def test_frames_are_chosen_as_a_loader_does(monkeypatch, draws):
    for _ in range(300):
        own = {name: int(draws.integers(1, most)) for name, most in (("FRAMES", 9), ("STRIDE", 6), ("ALIGN", 6))}
        own |= {"SHORT": str(draws.choice(["repeat", "loop"])), "FPS": [None, 7.5][draws.integers(2)]}
        for name, value in own.items():
            monkeypatch.setattr(clip, name, value)
        words = {name.lower(): value for name, value in own.items()}
        count, rate = int(draws.integers(1, 60)), float(draws.choice([10, 25, 30000 / 1001]))
        expected = VideoClip(start="center", **words).numbers(count, np.random.default_rng(0), fps=rate)
        assert clip.choose_frames(count, rate) == expected.tolist()


def test_frames_of_the_right_size_stay_and_others_are_cropped(draws, tmp_path, monkeypatch):
    monkeypatch.setattr(clip, "SIZE", 16)
    monkeypatch.setattr(clip, "FRAMES", 2)
    chosen = np.stack([spots(16, 16, draws)] * 2)
    assert np.array_equal(clip.read_clip(chosen), chosen)
    wide = np.stack([spots(40, 16, draws)] * 2)
    assert np.array_equal(clip.read_clip(wide), wide[:, :, 12:28])
    assert clip.read_clips([write_clip(tmp_path / "a", draws), wide]).shape == (2, 2, 16, 16, 3)


def test_a_pair_of_samples_and_rate_is_read_as_its_file(draws, tmp_path):
    path = write_sound(tmp_path / "a", draws)
    samples, rate = sound.soundfile.read(path, dtype="float32")
    assert torch.equal(*sound.read_sounds([path, (samples, rate)]))
