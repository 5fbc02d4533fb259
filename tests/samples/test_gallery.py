"""Media for the gallery: squares of a clip, sound at one rate, and what is not there."""

import av
import numpy as np
import pytest

from maskstream.samples import gallery, packages
from maskstream.samples.gallery import fetch_gallery_media, read_clip, read_sound


def test_every_fourth_frame_as_a_lightened_square(tmp_path, monkeypatch):
    for name, value in {"FRAMES": 3, "LEFT": 0, "TOP": 0, "SIDE": 32}.items():
        monkeypatch.setattr(gallery, name, value)
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv444p"
        for i in range(12):
            picture = np.full((32, 64, 3), 20 * i, dtype=np.uint8)
            picture[:, 32:] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    clip = read_clip(path)
    assert clip.shape == (3, 16, 16, 3)
    assert clip.dtype == np.uint8
    lightened = [255 * (level / 255) ** 0.65 for level in (0, 80, 160)]
    np.testing.assert_allclose(clip[:, 4:12, 4:12].mean(axis=(1, 2, 3)), lightened, atol=3)


def test_sound_is_mono_at_16_khz(tmp_path):
    path = tmp_path / "tone.wav"
    tone = (20000 * np.sin(2 * np.pi * 500 * np.arange(48000) / 48000)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.repeat(tone, 2)[None], format="s16", layout="stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound = read_sound(path)
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(16000, abs=40)
    assert np.argmax(np.abs(np.fft.rfft(sound[:16000]))) == 500


def test_without_a_network_everything_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(packages, "version", lambda name: "none")
    found = fetch_gallery_media(tmp_path / "raw")
    assert found.media == {}
    assert set(found.missing) == {"video", "speech", "crowd", "text", "animal", "plane", "walk", "corridor"}
    assert "pyvista==0.47.1 could not be downloaded" in found.missing["plane"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
