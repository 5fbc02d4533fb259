"""Sources of every kind: rotated, interlaced, at a variable rate, in full range, damaged."""

import io
import pickle
from dataclasses import replace
from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest
from av.stream import Disposition

from maskstream.preprocess.encode.video.video import PROFILES, RejectError, encode_video

TRAIN = PROFILES["train"]
SHARP = replace(TRAIN, crf=2)
QUALITY = {"crf": "2"}


def rejected(path, profile=TRAIN):
    with pytest.raises(RejectError) as caught:
        encode_video(path, profile)
    return caught.value


def error(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).mean()


@pytest.mark.parametrize(("degrees", "hflip", "vflip"), [*product((0, 90, 180, 270), (False, True), (False, True))])
def test_display_matrix(make_video, rgb, degrees, hflip, vflip):
    setup = lambda stream: stream.set_display_rotation(degrees, hflip, vflip)  # noqa: E731
    encoded = encode_video(make_video("turned.mp4", 2, options=QUALITY, setup=setup), SHARP)
    upright = np.rot90(rgb(make_video("plain.mp4", 2, options=QUALITY)), degrees // 90, (1, 2))
    upright = upright[:, :, ::-1] if hflip else upright
    upright = upright[:, ::-1] if vflip else upright
    assert error(rgb(encoded.data), upright) < 4
    assert (encoded.index.height, encoded.index.width) == upright.shape[1:3]


def test_pixel_aspect_becomes_square(make_video):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    index = encode_video(make_video("wide.mp4", 3, setup=wide), TRAIN).index
    assert (index.width, index.height) == (96, 48)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rgb.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
        ("full.mkv", {"codec": "mjpeg", "pix_fmt": "yuvj444p", "options": {"qmax": "2"}}),
        ("ten_bit.mkv", {"codec": "ffv1", "pix_fmt": "yuv444p10le"}),
        ("alpha.mov", {"codec": "qtrle", "pix_fmt": "argb"}),
        ("gray.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
    ],
)
def test_pixel_formats_keep_their_colours(make_video, rgb, name, options):
    path = make_video(name, 4, **options)
    encoded = encode_video(path, SHARP)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).format.name == options["pix_fmt"]
    ours, truth = rgb(encoded.data).astype(int), rgb(path).astype(int)
    assert np.abs((ours - truth).mean((0, 1, 2))).max() < 3
    assert error(ours, truth) < 4
    with av.open(io.BytesIO(encoded.data)) as container:
        frame = next(container.decode(video=0))
    assert (frame.format.name, frame.color_range, frame.colorspace) == ("yuv420p", 1, 6)


def test_bt709_is_converted(make_video, rgb):
    """The same numbers under another matrix are other colours; ours are BT.601."""

    def bt709(stream):
        stream.codec_context.colorspace = 1

    path = make_video("hd.mkv", 2, codec="ffv1", pix_fmt="yuv444p", setup=bt709)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == 1
        truth = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    assert error(rgb(encode_video(path, SHARP).data)[0], truth) < 4


def test_interlaced_is_made_progressive(make_video, rgb):
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "2"}
    path = make_video("tv.mkv", 12, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    encoded = encode_video(path, SHARP)
    assert encoded.index.n_frames == 12
    with av.open(io.BytesIO(encoded.data)) as container:
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))
    combs = lambda video: np.abs(np.diff(video.astype(int), 2, axis=1)).mean()  # noqa: E731
    assert combs(rgb(encoded.data)) <= combs(rgb(path))


def test_variable_rate_shows_what_was_shown(make_video, rgb):
    """At every time, the output shows the frame that the source shows then."""
    times_ms = np.cumsum(np.random.default_rng(0).choice([33, 50, 66, 120], 40))
    path = make_video("phone.mkv", 40, pts=times_ms.tolist(), time_base=Fraction(1, 1000), options=QUALITY)
    encoded = encode_video(path, SHARP)
    assert encoded.meta["vfr"]
    assert encoded.meta["original"]["n_frames"] == 40
    assert encoded.meta["original"]["fps"] == pytest.approx(39 / (times_ms[-1] - times_ms[0]) * 1000)
    assert encoded.index.fps == 15.0
    source, ours = rgb(path).astype(int), rgb(encoded.data)
    starts = (times_ms - times_ms[0]) / 1000
    tolerance = min(1 / 15, np.median(np.diff(starts))) / 4
    for number, frame in enumerate(ours):
        expected = np.searchsorted(starts, number / 15 + tolerance, side="right") - 1
        assert np.abs(source - frame).mean((1, 2, 3)).argmin() == expected


def test_dropped_frames_are_filled(make_video):
    kept = [i for i in range(60) if i not in (20, 21, 22, 40)]
    path = make_video("gaps.mkv", 56, pts=[round(i * 1000 / 30) for i in kept], time_base=Fraction(1, 1000))
    encoded = encode_video(path, TRAIN)
    assert (encoded.index.fps, encoded.index.n_frames, encoded.meta["vfr"]) == (30.0, 60, True)


def test_a_jump_of_hours_is_damage(make_video):
    pts = [*range(20), *range(10**7, 10**7 + 20)]
    for profile in PROFILES.values():
        with pytest.raises(RejectError, match="40 frames in 400001 s"):
            encode_video(make_video("jump.mkv", 40, pts=pts, options={"bf": "0"}), profile)


def test_a_frame_every_few_seconds(make_video):
    path = make_video("slides.mkv", 5, pts=[0, 3000, 6000, 14000, 15000], time_base=Fraction(1, 1000))
    index = encode_video(path, TRAIN).index
    assert (index.fps, index.n_frames) == (0.25, 5)


def test_start_offset_is_no_gap(make_video):
    path = make_video("late.mkv", 30, pts=list(range(1000, 1030)))
    encoded = encode_video(path, TRAIN)
    assert (encoded.index.n_frames, encoded.meta["vfr"]) == (30, False)


def test_resolution_change_is_scaled_to_the_first(make_video, tmp_path):
    parts = [make_video("a.h264", 8), make_video("b.h264", 8, width=96, height=72)]
    path = tmp_path / "joined.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    index = encode_video(path, TRAIN).index
    assert (index.width, index.height, index.n_frames) == (64, 48, 16)
    assert "profile train" in rejected(path, PROFILES["copy"]).reason


def test_a_packet_without_bytes_repeats_the_frame_before_it(tmp_path, rgb):
    """As Theora and others store a frame that does not change; a decoder would take it for the end of the stream."""
    path, repeated = tmp_path / "still.nut", 7
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qmin": "1", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * n, np.uint8), "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            for packet in stream.encode(frame):
                if n == repeated:
                    empty = av.Packet(b"")
                    empty.stream, empty.pts, empty.dts = stream, packet.pts, packet.dts
                    empty.time_base, empty.duration = packet.time_base, packet.duration
                    packet = empty
                container.mux(packet)
    shown = rgb(encode_video(path, SHARP).data).mean((1, 2, 3))
    wanted = np.array([10 * (n - (n == repeated)) for n in range(20)])
    assert len(shown) == 20
    assert np.abs(shown - wanted).max() < 3


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mpg", "a.webm", "a.flv", "front.mp4"])
def test_truncated_files_are_refused_with_their_count(make_video, name):
    codec = {"a.avi": "mpeg4", "a.mpg": "mpeg2video", "a.webm": "libvpx", "a.flv": "flv"}.get(name, "libx264")
    muxer = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = make_video(name, 100, codec=codec, muxer=muxer, options={"g": "10"})
    assert encode_video(path, TRAIN).index.n_frames == 100
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    failure = rejected(path)
    assert failure.stage == "decode"
    assert "truncated" in failure.reason
    assert "frames can be read" in failure.reason


def test_damaged_packets_are_refused(make_video):
    path = make_video("front.mp4", 40, muxer={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = len(data) * 6 // 10
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(data)
    for profile in ("train", "copy"):
        failure = rejected(path, PROFILES[profile])
        assert failure.stage == "decode"
        assert "damaged" in failure.reason


def test_no_video(make_video, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "notes.txt").write_text("not a video\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n")
    make_video("a.ts", 5)
    cut = make_video("a.mp4", 5)
    cut.write_bytes(cut.read_bytes()[:100])
    for path, reason in (
        (tmp_path / "nothing.mp4", "cannot be read"),
        (tmp_path, "not a file"),
        (tmp_path / "empty.mp4", "0 bytes"),
        (tmp_path / "text.mp4", "text file"),
        (tmp_path / "notes.txt", "text file"),
        (tmp_path / "list.m3u8", "text file"),
        (cut, "truncated"),
    ):
        failure = rejected(path)
        assert failure.stage == "open"
        assert reason in failure.reason


def test_sound_and_cover_art_are_no_video(tmp_path):
    for name, art in (("song.m4a", False), ("cover.m4a", True)):
        path = tmp_path / name
        with av.open(str(path), "w", format="mp4") as container:
            sound = container.add_stream("aac", rate=16000, layout="mono")
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            tone.sample_rate = 16000
            if art:
                picture = container.add_stream("mjpeg", rate=1)
                picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
                picture.disposition = Disposition.attached_pic
                frame = av.VideoFrame(32, 32, "yuvj420p")
                frame.pts = 0
                container.mux(picture.encode(frame))
                container.mux(picture.encode(None))
            container.mux(sound.encode(tone))
            container.mux(sound.encode(None))
        failure = rejected(path)
        assert "no video stream" in failure.reason
        assert ("cover art" in failure.reason) == art


def test_smallest_side(make_video):
    assert "1x1" in rejected(make_video("dot.mkv", 2, width=1, height=1, codec="ffv1", pix_fmt="bgr0")).reason
    assert "each side needs at least 16" in rejected(make_video("line.mkv", 2, width=64, height=14)).reason
    assert encode_video(make_video("small.mkv", 2, width=16, height=16), TRAIN).index.width == 16


def test_no_frames(make_video, tmp_path):
    encoded = encode_video(make_video("a.mp4", 5), TRAIN)
    path = tmp_path / "header.mp4"
    path.write_bytes(encoded.data[: encoded.index.header_size])
    for profile in ("train", "copy"):
        assert "frames" in rejected(path, PROFILES[profile]).reason


def test_a_reject_survives_pickling_and_names_its_stage(tmp_path):
    failure = rejected(tmp_path / "nothing.mp4")
    again = pickle.loads(pickle.dumps(failure))
    assert (again.stage, again.reason) == (failure.stage, failure.reason)
    assert str(again).startswith("open: ")
