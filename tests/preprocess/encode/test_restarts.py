"""Streams whose keyframes restart the decoder are decoded once, and get the table that the exact check finds."""

import av
import numpy as np
import pytest

from maskstream.preprocess.encode.video import check, video
from maskstream.preprocess.encode.video.fragments import parse_output, remux
from maskstream.preprocess.encode.video.restarts import restarts_at_keyframes
from maskstream.preprocess.encode.video.video import PROFILES, RejectError, encode_video
from maskstream.shards.media.h264_sps import UnknownSpsError, read_sps

COPY = PROFILES["copy"]
CLOSED = "keyint=12:min-keyint=12:scenecut=0:open-gop=0"
OPEN = "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=3:b-adapt=0"
QUIET = ":log-level=none:pools=none"


def x264(params=CLOSED, **more):
    return {"options": {"x264-params": params}, **more}


def x265(params):
    return {"codec": "libx265", "options": {"x265-params": params + QUIET}}


RESTART = {
    "h264.mp4": x264(),
    "no_b.mp4": x264(CLOSED + ":bframes=0"),
    "pyramid.mkv": x264(CLOSED + ":bframes=5:b-pyramid=normal:ref=4"),
    "annexb.ts": x264(),  # parameter sets before every keyframe
    "h264.mkv": x264(pix_fmt="yuv444p"),
    "ten_bit.mkv": x264(pix_fmt="yuv420p10le"),
    "hrd.mp4": x264(CLOSED + ":nal-hrd=vbr:vbv-maxrate=500:vbv-bufsize=500:cqm=jvt:sar=4,3"),
    "one_gop.mp4": x264("keyint=250"),
    "hevc.mp4": x265(CLOSED),
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8", "deadline": "realtime"}},
    "vp9_alt_ref.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "5", "auto-alt-ref": "1"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"g": "12", "preset": "12", "svtav1-params": "lp=1"}},
}
OTHERS = {
    "open.mp4": x264(OPEN),
    "refresh.mp4": x264("keyint=12:intra-refresh=1:bframes=0:ref=1"),
    "open_hevc.mp4": x265(OPEN),
}


def outcome(path):
    try:
        made = encode_video(path, COPY)
    except RejectError as error:
        return str(error)
    index = made.index
    return made.data, made.meta, index.first_frame.tolist(), index.lead.tolist(), index.offset.tolist()


@pytest.mark.parametrize("name", [*RESTART, *OTHERS])
def test_the_table_is_that_of_the_exact_check(make_video, monkeypatch, name):
    path = make_video(name, 40, **{**RESTART, **OTHERS}[name])
    decodes = []
    shown = check._shown
    monkeypatch.setattr(check, "_shown", lambda data, **how: (decodes.append(len(data)), shown(data, **how))[1])
    ours, n_ours = outcome(path), len(decodes)
    monkeypatch.setattr(video, "restarts_at_keyframes", lambda parsed: False)
    assert outcome(path) == ours
    n_others = len(decodes) - n_ours
    assert n_ours == (1 if name in RESTART else n_others) < 1 + n_others
    assert restarts_at_keyframes(parse_output(remux(path))) == (name in RESTART)


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "vp9.webm"])
def test_of_damaged_videos_too(make_video, monkeypatch, name):
    """What a decoder shows of damage depends on where it starts; such a video is compared as before."""
    path = make_video(name, 40, **RESTART[name])
    data, draw = path.read_bytes(), np.random.default_rng(0)
    for _ in range(25):
        damaged = bytearray(data)
        damaged[int(draw.integers(len(data) // 10, len(data)))] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        ours = outcome(path)
        with monkeypatch.context() as patched:
            patched.setattr(video, "restarts_at_keyframes", lambda parsed: False)
            assert outcome(path) == ours


def with_packets(path, out, changed):
    """A copy of a video whose packets, in MP4 form, are `changed(number, bytes)`."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        ours = target.add_stream_from_template(stream, opaque=True)
        for n, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            made = av.Packet(changed(n, bytes(packet)))
            made.pts, made.dts, made.time_base, made.is_keyframe = (
                packet.pts,
                packet.dts,
                packet.time_base,
                packet.is_keyframe,
            )
            made.stream = ours
            target.mux(made)
    return out


def unit(data):
    return len(data).to_bytes(4, "big") + data


def test_what_may_change_the_state_of_a_decoder_is_compared(make_video, tmp_path):
    path = make_video("whole.mp4", 40, **x264())
    with av.open(str(path)) as container:
        extradata = bytes(container.streams.video[0].codec_context.extradata)
    size = int.from_bytes(extradata[6:8], "big")
    sps, pps = extradata[8 : 8 + size], extradata[8 + size + 3 :]
    pps = pps[: int.from_bytes(extradata[9 + size : 11 + size], "big")]
    assert (sps[0] & 31, pps[0] & 31) == (7, 8)
    cases = {
        "known.mp4": (unit(sps) + unit(pps), True),
        "other_pps.mp4": (unit(pps[:-1] + bytes([pps[-1] ^ 4])), False),
        "other_sps.mp4": (unit(sps + b"\x80"), False),
        "old_x264.mp4": (unit(b"\x06\x05\x20" + bytes(16) + b"x264 - core 30 - x"), False),
        "view.mp4": (unit(b"\x74\x00\x00"), False),
        "partition.mp4": (unit(b"\x02\x00\x00"), False),
    }
    for name, (more, restarts) in cases.items():
        made = with_packets(path, tmp_path / name, lambda n, data, more=more: more + data if n == 13 else data)
        assert restarts_at_keyframes(parse_output(remux(made))) == restarts, name
    cut = with_packets(path, tmp_path / "cut.mp4", lambda n, data: data[:-3] if n == 5 else data)
    assert not restarts_at_keyframes(parse_output(remux(cut)))


def bits(*parts):
    """A sequence parameter set of (value, number of bits), or of numbers in Exp-Golomb code."""
    text = ""
    for part in parts:
        value, width = part if isinstance(part, tuple) else (part + 1, 2 * (part + 1).bit_length() - 1)
        text += f"{value:0{width}b}"
    text += "1"
    return b"\x67" + bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


MAIN = ((77, 8), (0, 16), 0, 0, 0, 4, 2, (0, 1), 19, 14, (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("vui", "says"),
    [
        (((0, 1), (0, 1)), False),  # no cropping, no VUI
        (((0, 1), (1, 1), (0, 9)), False),  # nothing in it
        (((0, 1), (1, 1), (0, 7), (0, 1), (1, 1)), True),
        (((1, 1), 0, 0, 0, 4, (1, 1), (1, 1), (255, 8), (1 << 20, 32), (0, 6), (0, 1), (1, 1)), True),
        (((0, 1), (1, 1), (0, 1), (1, 1), (1, 1), (1, 1), (5, 4), (1, 1), (66, 24), (0, 6)), False),
    ],
)
def test_the_parameter_set_says_whether_frames_are_held_back(vui, says):
    assert read_sps(bits(*MAIN, *vui)).says_reordering == says


def test_a_parameter_set_that_is_cut_off_is_unknown():
    whole = bits(*MAIN, (0, 1), (1, 1), (0, 7), (0, 1), (1, 1))
    for size in range(1, len(whole) - 1):
        with pytest.raises(UnknownSpsError):
            read_sps(whole[:size])
    draw = np.random.default_rng(0)
    for _ in range(2000):  # whatever the bytes are, it ends
        try:
            read_sps(draw.bytes(int(draw.integers(1, 60))))
        except UnknownSpsError:
            continue


def test_a_found_parameter_set_without_it():
    """Of a video whose encoder left the frames that are held back to the decoder's guess."""
    assert not read_sps(bytes.fromhex("274d400ca918283f600d4180418c2b5ef7c040")).says_reordering
