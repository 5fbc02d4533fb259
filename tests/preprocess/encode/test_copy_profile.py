"""The profile `copy`: packets untouched, GOPs that are exact entry points, open GOPs."""

import io

import av
import numpy as np
import pytest

from maskstream.preprocess.encode.video.video import PROFILES, RejectError, encode_video

COPY = PROFILES["copy"]
SVT = {"g": "20", "preset": "12", "svtav1-params": "lp=1"}
SOURCES = {
    "h264.mp4": {"options": {"g": "20", "sc_threshold": "0"}},
    "h264.mkv": {"options": {"g": "20", "sc_threshold": "0"}},
    "h264.ts": {"options": {"g": "20", "sc_threshold": "0"}},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=20:min-keyint=20:scenecut=0:open-gop=0:log-level=none:pools=none"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "20", "cpu-used": "8", "deadline": "realtime"}},
    "h264_10bit.mkv": {"pix_fmt": "yuv420p10le", "options": {"g": "20", "sc_threshold": "0"}},
}


def slice_of(encoded, start, stop):
    index = encoded.index
    end = index.offset[stop - 1] + index.size[stop - 1]
    return encoded.data[: index.header_size] + encoded.data[index.offset[start] : end]


def payloads(container_bytes_or_path):
    with av.open(container_bytes_or_path, "r") as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def assert_every_frame_comes_from_its_gops(encoded, planes, whole):
    """As a reader does it: the GOPs of a frame, what is shown before their first keyframe left out."""
    index = encoded.index
    for number in range(index.n_frames):
        start, stop = index.gops_of(np.array([number]))
        data = slice_of(encoded, start, stop)
        with av.open(io.BytesIO(data), "r") as container:
            key_pts = next(iter(container.demux(video=0))).pts
        shown = [frame for frame in planes(data) if frame[0] >= key_pts]
        assert shown[number - index.first_frame[start]][1:] == whole[number][1:]


@pytest.mark.parametrize("name", SOURCES)
def test_packets_are_untouched(make_video, planes, rgb, name):
    path = make_video(name, 50, **SOURCES[name])
    encoded = encode_video(path, COPY)
    assert encoded.index.n_frames == 50
    assert encoded.index.first_frame.tolist() == [0, 20, 40]
    assert [frame[2] for frame in planes(encoded.data)] == [frame[2] for frame in planes(path.read_bytes())]
    assert_every_frame_comes_from_its_gops(encoded, planes, planes(encoded.data))
    if path.suffix in (".mp4", ".webm"):
        assert payloads(io.BytesIO(encoded.data)) == payloads(str(path))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_open_gops_have_a_lead(make_video, planes, codec):
    name = codec[3:] + "-params"
    options = {name: "keyint=24:min-keyint=24:scenecut=0:open-gop=1:bframes=3:b-adapt=0"}
    if codec == "libx265":
        options[name] += ":log-level=none:pools=none"
    encoded = encode_video(make_video("open.mp4", 80, codec=codec, options=options), COPY)
    assert encoded.index.first_frame.tolist() == [0, 24, 48, 72]
    assert encoded.index.lead.tolist() == [0, 3, 3, 3]
    assert_every_frame_comes_from_its_gops(encoded, planes, planes(encoded.data))


def test_recovery_points_that_are_no_entries_are_merged(make_video, planes):
    """Intra refresh: a packet is flagged as a keyframe, but what follows needs the frames before it."""
    options = {"x264-params": "keyint=12:intra-refresh=1:bframes=0:ref=1", "crf": "10"}
    path = make_video("refresh.mp4", 60, options=options)
    flagged = [packet.is_keyframe for packet in av.open(str(path)).demux(video=0) if packet.size]
    encoded = encode_video(path, COPY)
    assert len(encoded.index.first_frame) < sum(flagged)
    assert_every_frame_comes_from_its_gops(encoded, planes, planes(encoded.data))


def test_time_stamps_survive(make_video):
    pts = np.cumsum(np.random.default_rng(0).choice([40, 80, 120], 30)).tolist()
    path = make_video("vfr.mkv", 30, pts=pts, rate=1000, options={"bf": "0"})
    encoded = encode_video(path, COPY)
    assert encoded.meta["vfr"]
    with av.open(io.BytesIO(encoded.data), "r") as container:
        ours = np.array([float(frame.pts * frame.time_base) for frame in container.decode(video=0)])
    np.testing.assert_allclose(ours - ours[0], (np.array(pts) - pts[0]) / 1000, atol=1e-3)
    assert encoded.index.fps == pytest.approx(29 / (pts[-1] - pts[0]) * 1000)


def test_av1(make_video, planes):
    encoded = encode_video(make_video("av1.mkv", 50, codec="libsvtav1", options=SVT), COPY)
    assert len(encoded.index.first_frame) == 3
    assert encoded.index.codec == "av1"
    assert_every_frame_comes_from_its_gops(encoded, planes, planes(encoded.data))


def test_what_it_refuses_names_train(make_video):
    for path, reason in (
        (make_video("a.avi", 5, codec="mpeg4"), "is mpeg4; profile copy stores"),
        (make_video("b.mp4", 5, setup=lambda stream: stream.set_display_rotation(90)), "rotated"),
        (make_video("c.mkv", 30, options={"flags": "+ildct+ilme", "x264-params": "tff=1"}), "interlaced"),
    ):
        with pytest.raises(RejectError, match=reason) as caught:
            encode_video(path, COPY)
        assert "use profile train" in caught.value.reason
    with pytest.raises(RejectError, match="use profile train"):
        encode_video(make_video("d.mp4", 30), COPY, (0, 10))


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4"])
def test_a_start_without_a_keyframe_is_left_out(make_video, recut, name):
    """As cut by tools that do not look for keyframes; of an open GOP, also what is shown before its keyframe."""
    options = {"x264-params": "keyint=20:min-keyint=20:scenecut=0:open-gop=1:bframes=3:b-adapt=0"}
    whole = make_video("whole.mkv", 60, options=options)
    for skip, n_shown in ((5, 40), (17, 40), (20, 20)):
        path = recut(make_video("whole.mp4", 60, options=options), name, skip=skip)
        for profile in ("copy", "train"):
            encoded = encode_video(path, PROFILES[profile])
            assert encoded.index.n_frames == encoded.meta["original"]["n_frames"] == n_shown
            assert (encoded.index.fps, encoded.meta["vfr"]) == (25.0, False)
    assert encode_video(whole, COPY).index.lead.tolist() == [0, 3, 3]


def test_frames_that_an_edit_list_hides_are_copied_but_not_encoded(make_video, recut):
    path = make_video("whole.mp4", 50, options={"g": "25", "sc_threshold": "0", "bf": "0"})
    tick = 512
    cut = recut(path, "cut.mp4", shift=-10 * tick)
    with av.open(str(cut)) as container:
        assert sum(packet.is_discard for packet in container.demux(video=0)) == 10
    train, copy = (encode_video(cut, PROFILES[name]) for name in ("train", "copy"))
    assert train.index.n_frames == train.meta["original"]["n_frames"] == 40
    assert copy.index.n_frames == 50
