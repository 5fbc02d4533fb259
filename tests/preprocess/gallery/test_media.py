"""Media for the gallery: joints of a motion capture, squares of a clip, sound at one rate, and what is not there."""

import av
import numpy as np
import pytest

from maskstream.preprocess.gallery.bvh import read_bvh
from maskstream.preprocess.gallery.media import gallery_media, read_clip, read_sound
from maskstream.shards.errors import DatasetError

ARM = """HIERARCHY
ROOT Hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Elbow
  {
    OFFSET 2 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 1 0 0
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.1
0 0 0 0 0 0 0 0 0
5 6 7 90 0 0 90 0 0
0 0 0 0 0 90 0 90 0
"""


def test_joints_follow_their_parents_turns(tmp_path):
    path = tmp_path / "arm.bvh"
    path.write_text(ARM)
    positions, parents, names = read_bvh(path)
    assert names == ("Hip", "Elbow", "ElbowEnd")
    assert parents.tolist() == [-1, 0, 1]
    np.testing.assert_allclose(positions[0], [[0, 0, 0], [2, 0, 0], [3, 0, 0]], atol=1e-6)
    # x turns to y about z, and again: the forearm points back along x.
    np.testing.assert_allclose(positions[1], [[5, 6, 7], [5, 8, 7], [4, 8, 7]], atol=1e-5)
    # x turns to -z about y; the elbow's turn about x leaves its own x where it is.
    np.testing.assert_allclose(positions[2], [[0, 0, 0], [0, 0, -2], [0, 0, -3]], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"), [(ARM[:-20], "27 numbers, got"), (ARM.split("MOTION")[0], "no BVH file"), ("", "no BVH file")]
)
def test_a_capture_that_was_cut_short_is_refused(tmp_path, text, words):
    path = tmp_path / "cut.bvh"
    path.write_text(text)
    with pytest.raises(DatasetError, match=words):
        read_bvh(path)


def test_every_fourth_frame_as_a_square(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv444p"
        for i in range(12):
            picture = np.full((32, 64, 3), 20 * i, dtype=np.uint8)
            picture[:, 32:] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    clip = read_clip(path, frames=3, stride=4, left=0, side=32, size=16)
    assert clip.shape == (3, 16, 16, 3)
    assert clip.dtype == np.uint8
    np.testing.assert_allclose(clip[:, 4:12, 4:12].mean(axis=(1, 2, 3)), [0, 80, 160], atol=3)


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
    found = gallery_media(tmp_path / "raw")
    assert found.media == {}
    assert set(found.missing) == {"video", "speech", "crowd", "text", "animal", "plane", "walk"}
    assert "pyvista==0.47.1 could not be downloaded" in found.missing["plane"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
