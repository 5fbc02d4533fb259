"""Parts of videos and sounds by time, compared with all frames and samples of the file as other readers decode them."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import soundfile as sf

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.audio.sound import read_sound
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.limits import Limits, limited
from maskstream.preprocess.encode.video import source
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.encode.video.source import open_part
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.source import RejectError, Source, Span

from ...flash_and_beep import FPS, write
from .sounds import wave, write_sound
from .test_audiovisual import assert_together

KEYS = {"g": "10", "bf": "2"}


def shown(path, span):
    """The time and the pixels of each frame of a part."""
    _, frames = open_part(path, span)
    return [(float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")) for frame in frames]


def read_whole(path):
    with av.open(str(path)) as container:
        origin = (container.start_time or 0) / 1e6
        return [
            (float(frame.pts * frame.time_base) - origin, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize(
    ("name", "codec", "options", "rate"),
    [
        ("a.mp4", "libx264", KEYS, 25),
        ("a.mp4", "libx264", {"g": "12", "x264-params": "open-gop=1:bframes=2:scenecut=0:b-adapt=0"}, 25),
        ("a.mp4", "libx264", {"g": "12", "x264-params": "intra-refresh=1:keyint=12"}, 25),
        ("a.mkv", "libx264", KEYS, 24),
        ("a.webm", "libvpx", {"g": "10"}, 25),
        ("a.ts", "libx264", KEYS, 25),
    ],
)
def test_the_frames_of_a_part_are_those_that_begin_in_it(make_video, name, codec, options, rate):
    """Sought and decoded from a keyframe, or read from the begin; whatever starts and ends there are."""
    path = make_video(name, 60, codec=codec, options=options, rate=rate)
    whole = read_whole(path)
    assert len(whole) == 60
    for start, stop in ((0.0, 0.4), (0.4, 0.8), (0.79, 1.61), (1.0, None), (2.2, 2.4), (0.5, 0.53)):
        wanted = [(at, pixels) for at, pixels in whole if start - 1e-3 <= at < (stop or 99) - 1e-3]
        got = shown(path, Span(start_s=start, stop_s=stop))
        assert len(got) == len(wanted) > 0, (start, stop)
        for (_, one), (_, other) in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_only_the_part_is_decoded(make_video, monkeypatch):
    path = make_video("a.mp4", 200, options={"g": "10"})
    seen, real = [], source._decoded

    def decoded(*given):
        frames = real(*given)
        seen.extend(frames)
        return frames

    monkeypatch.setattr(source, "_decoded", decoded)
    assert len(shown(path, Span(start_s=6.0, stop_s=6.4))) == 10
    assert len(seen) < 40


def test_parts_that_meet_share_no_frame_and_lose_none(make_video):
    """At 30000/1001 frames a second, in a container that rounds to milliseconds."""
    path = make_video("a.mkv", 90, rate=Fraction(30000, 1001), options=KEYS)
    cuts = [0.0, 0.701, 1.001, 1.5, 2.002, None]
    parts = [shown(path, Span(start_s=a, stop_s=b)) for a, b in pairwise(cuts)]
    assert [len(part) for part in parts] == [21, 9, 15, 15, 30]
    for (_, one), (_, other) in zip([frame for part in parts for frame in part], read_whole(path), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_part_at_a_variable_rate_begins_with_the_frame_that_is_shown(make_video, rgb):
    """As slides that stay for seconds: the frame at 0.4 s stays until 1.4 s."""
    stamps = [*range(0, 440, 40), *range(1400, 2400, 40)]
    path = make_video("a.mkv", len(stamps), pts=stamps, time_base=Fraction(1, 1000), options=KEYS)
    made = VideoEncoder().encode(Source(id="a", path=path, span=Span(start_s=0.8, stop_s=1.6)))
    frames = rgb(made.members["mp4"].data).astype(int)
    assert made.meta["fps"] == VideoEncoder().encode(Source(id="a", path=path)).meta["fps"] == 15
    held = [int(np.abs(frame - frames[0]).max() < 60) for frame in frames]
    assert held == [1] * 9 + [0] * 3


def test_frames_without_time_stamps_are_counted(make_video):
    path = make_video("a.avi", 50, codec="mpeg4", options={"g": "10"})
    whole = read_whole(path)
    assert len(shown(path, Span(start_s=0.4, stop_s=1.2))) == 20
    np.testing.assert_array_equal(shown(path, Span(start_s=0.4, stop_s=1.2))[0][1], whole[10][1])


def test_a_part_is_the_window_of_its_frames_byte_for_byte(make_video):
    path = make_video("a.mp4", 80, options=KEYS)
    by_time = encode_video(path, PROFILES["train"], Span(start_s=1.0, stop_s=2.2))
    by_number = encode_video(path, PROFILES["train"], (25, 55))
    assert by_time.data == by_number.data
    assert by_time.start_s == pytest.approx(by_number.start_s, abs=1e-6)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_part_beyond_the_file_is_rejected_with_its_line(make_video, name):
    path = make_video(name, 50, codec="mpeg4")
    listed = "list.csv, line 7"
    with pytest.raises(RejectError, match=r"ends at 2\.00 s, before the part from 5 s to 8 s \(list\.csv, line 7\)"):
        open_part(path, Span(start_s=5.0, stop_s=8.0, listed=listed))
    with pytest.raises(RejectError, match=r"ends at 2\.00 s, within the part from 1 s to 4 s"):
        open_part(path, Span(start_s=1.0, stop_s=4.0, listed=listed))
    assert len(shown(path, Span(start_s=1.0, stop_s=2.9))) == 25  # lists round


def test_a_part_keeps_the_rate_of_its_file(make_video):
    """Three frames with rounded stamps say 29.85 a second."""
    path = make_video("a.mkv", 60, rate=Fraction(30000, 1001), options=KEYS)
    made = VideoEncoder().encode(Source(id="a", path=path, span=Span(start_s=1.0, stop_s=1.1)))
    assert (made.meta["n_frames"], made.meta["fps"]) == (3, pytest.approx(30000 / 1001))
    with pytest.raises(RejectError, match="profile copy stores whole files"):
        VideoEncoder(video=PROFILES["copy"]).encode(Source(id="a", path=path, span=Span(start_s=1.0)))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.ogg", "libopus")]
)
def test_the_sound_of_a_part(tmp_path, name, codec):
    """PCM and FLAC are sought, others decoded from the begin; both give the samples of the whole file."""
    path = tmp_path / name
    write_sound(path, wave(16000 * 4, 2), 16000, codec)
    whole = read_sound(path)
    for start, stop in ((0.0, 0.5), (1.2345, 1.5), (2.5, 3.999), (3.0, None)):
        part = read_sound(path, Span(start_s=start, stop_s=stop))
        end = len(whole.samples) if stop is None else round(stop * whole.sample_rate)
        np.testing.assert_array_equal(part.samples, whole.samples[round(start * whole.sample_rate) : end])
        assert (part.bits, part.sample_rate) == (whole.bits, whole.sample_rate)
    with pytest.raises(RejectError, match="before the part from 20 s to 30 s"):
        read_sound(path, Span(start_s=20.0, stop_s=30.0))
    with pytest.raises(RejectError, match="within the part from 3 s to 8 s"):
        read_sound(path, Span(start_s=3.0, stop_s=8.0))


def test_a_part_of_a_long_sound_is_not_too_long(tmp_path):
    """A window behind the limit of a sound's length was refused."""
    path = tmp_path / "a.mp3"
    write_sound(path, wave(8000 * 20), 8000, "libmp3lame")
    with limited("a", Limits(sound_s=5)):
        made = AudioEncoder().encode(Source(id="a", path=path, span=Span(start_s=15.0, stop_s=17.5)))
        with pytest.raises(RejectError, match="is longer than 5 s; cut it into windows"):
            read_sound(path)
    data, rate = sf.read(io.BytesIO(made.members["flac"].data))
    assert (len(data), rate) == (20000, 8000)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.ts", "aac")])
def test_sound_stays_in_step_in_a_part(tmp_path, name, codec):
    path = write(tmp_path / name, (30, 60, 77), codec=codec)
    for first, stop in ((21, 70), (55, 95)):
        span = Span(start_s=first / FPS, stop_s=stop / FPS)
        made = AudioVisualEncoder().encode(Source(id="a", path=path, span=span))
        assert made.meta["n_frames"] == stop - first
        assert_together(made, [at - first for at in (30, 60, 77) if first <= at < stop])
