"""Truncated sounds are detected wherever the container allows it, and complete ones are never rejected."""

import io

import av
import numpy as np
import pytest
import soundfile as sf

from maskstream.preprocess.encode.audio.sound import count_mp3_frames, read_sound
from maskstream.preprocess.source import RejectError

from .sounds import wave, write_sound

RATE = 44100
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "300000"}
SOUNDS = {
    "cbr.mp3": ("libmp3lame", {"b": "64000"}, {}),
    "vbr.mp3": ("libmp3lame", {"global_quality": "590", "flags": "+qscale"}, {"id3v2_version": "4"}),
    "mono.mp3": ("libmp3lame", {"b": "32000"}, {}),
    "end.m4a": ("aac", {}, {}),
    "start.m4a": ("aac", {}, {"movflags": "faststart"}),
    "start.mp4": ("aac", {}, {"movflags": "faststart"}),
    "indexed.mp4": ("aac", {}, {"movflags": "dash+frag_keyframe+global_sidx", "frag_duration": "300000"}),
    "vorbis.ogg": ("", {}, {}),
    "a.opus": ("libopus", {}, {}),
    "a.flac": ("flac", {}, {}),
    "a.wav": ("pcm_s16le", {}, {}),
    "a.mka": ("libopus", {}, {}),
}
NO_HEADER = {"write_xing": "0", "id3v2_version": "0"}
SHARES = (0.11, 0.4, 0.63, 0.87, 0.98)


def made(tmp_path, name, codec, options, muxer):
    rate = 48000 if codec == "libopus" else RATE
    channels = 1 if name.startswith("mono") else 2
    if name == "vorbis.ogg":
        sf.write(tmp_path / name, wave(3 * rate + 517, channels), rate, subtype="VORBIS")
        return (tmp_path / name).read_bytes()
    data = write_sound(tmp_path / name, wave(3 * rate + 517, channels), rate, codec, options=options, muxer=muxer)
    if name == "mono.mp3":
        data += b"TAG" + bytes(125)  # ID3v1
        (tmp_path / name).write_bytes(data)
    return data


@pytest.mark.parametrize("name", SOUNDS)
def test_whole_sounds_are_read_and_cut_ones_are_rejected(tmp_path, name):
    data = made(tmp_path, name, *SOUNDS[name])
    assert len(read_sound(tmp_path / name).samples) >= 3 * RATE
    assert np.array_equal(read_sound(data).samples, read_sound(tmp_path / name).samples)
    sizes = [int(len(data) * share) for share in SHARES]
    if name != "a.mka":  # which says its length to within 50 ms
        sizes.append(len(data) - 300)
    for size in sizes:
        with pytest.raises(RejectError) as caught:
            read_sound(data[:size])
        assert any(
            words in str(caught.value) for words in ("truncated", "cannot be opened", "damaged", "no audio track")
        ), size


@pytest.mark.parametrize("name", ["cbr.mp3", "vbr.mp3", "mono.mp3"])
def test_an_mp3_that_lacks_whole_frames_is_told_by_its_header(tmp_path, name):
    data = made(tmp_path, name, *SOUNDS[name])
    frames = count_mp3_frames(data)
    assert frames.n == frames.n_declared
    assert frames.missing_bytes == 0
    with av.open(io.BytesIO(data)) as container:
        sizes = [packet.size for packet in container.demux(audio=0) if packet.size]
    assert len(sizes) == frames.n
    last = len(data) - sizes[-1] - (128 if name == "mono.mp3" else 0)
    with pytest.raises(RejectError, match=rf"truncated: it holds {frames.n - 1} of the {frames.n} frames"):
        read_sound(data[:last])


def test_an_mp3_without_a_header_is_told_within_a_frame_only(tmp_path):
    data = write_sound(tmp_path / "a.mp3", wave(RATE), RATE, "libmp3lame", options={"b": "128000"}, muxer=NO_HEADER)
    frames = count_mp3_frames(data)
    assert frames.n_declared is None
    read_sound(data)
    last = data.rfind(b"\xff\xfb")
    read_sound(data[:last])  # nothing in it says that there was more
    with pytest.raises(RejectError, match="truncated: its last frame lacks"):
        read_sound(data[: last + 90])


def test_a_vbri_header_is_read(tmp_path):
    data = write_sound(tmp_path / "a.mp3", wave(RATE, 2), RATE, "libmp3lame", options={"b": "128000"}, muxer=NO_HEADER)
    frames = count_mp3_frames(data)
    head = bytearray(data[:417])
    head[4:] = bytes(413)
    size = len(data) + 417
    head[36:54] = b"VBRI" + bytes(6) + size.to_bytes(4, "big") + frames.n.to_bytes(4, "big")
    with_header = bytes(head) + data
    found = count_mp3_frames(with_header)
    assert (found.n, found.n_declared, found.bytes_declared, found.size_bytes) == (frames.n, frames.n, size, size)
    with pytest.raises(RejectError, match="frames that its header"):
        read_sound(with_header[: len(with_header) // 2])


def test_a_damaged_frame_within_an_mp3_is_not_its_end(tmp_path):
    data = bytearray(made(tmp_path, "cbr.mp3", *SOUNDS["cbr.mp3"]))
    whole = count_mp3_frames(bytes(data))
    at = data.index(b"\xff\xfb", len(data) // 2)
    data[at] = 0
    assert count_mp3_frames(bytes(data)).n in (whole.n - 1, whole.n - 2)


def test_adts_is_told_within_a_frame_only(tmp_path):
    data = write_sound(tmp_path / "a.aac", wave(RATE), RATE, "aac", form="adts")
    read_sound(data)
    with pytest.raises(RejectError, match="damaged after 44032 samples"):
        read_sound(data[: len(data) - 20])


def test_edit_lists_that_hide_sound_are_no_damage(tmp_path):
    data = bytearray(write_sound(tmp_path / "a.m4a", wave(3 * RATE), RATE, "aac"))
    at = data.index(b"elst") + 12
    whole, duration = len(read_sound(bytes(data)).samples), data[at : at + 4]
    data[at : at + 4] = (int.from_bytes(duration, "big") // 2).to_bytes(4, "big")
    half = len(read_sound(bytes(data)).samples)
    assert whole // 2 - 2048 < half < whole // 2 + 2048
    data[at : at + 8] = duration + (1024 + RATE).to_bytes(4, "big")
    assert len(read_sound(bytes(data)).samples) < whole - RATE // 2


def test_a_window_needs_only_what_comes_before_its_end(tmp_path):
    data = made(tmp_path, "cbr.mp3", *SOUNDS["cbr.mp3"])
    cut = data[: len(data) // 2]
    assert len(read_sound(cut, (200, 1000)).samples) == int(0.8 * RATE)
    m4a = made(tmp_path, "start.m4a", *SOUNDS["start.m4a"])
    assert len(read_sound(m4a[: len(m4a) // 2], (200, 1000)).samples) == int(0.8 * RATE)
    with pytest.raises(RejectError, match="truncated"):
        read_sound(m4a[: len(m4a) // 2], (200, 2500))


def test_a_flac_that_lacks_its_short_last_frame(tmp_path):
    sf.write(tmp_path / "a.flac", wave(4096 * 8 + 30), RATE, subtype="PCM_16")
    data = (tmp_path / "a.flac").read_bytes()
    last = data.rfind(b"\xff\xf8")
    with pytest.raises(RejectError, match="truncated"):
        read_sound(data[:last])
