"""Packets: which are read and decoded, and that the frames are the very frames of a plain decode of the whole file."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import (
    DecodeError,
    build_rgb_matrix,
    decode_frames,
    select_packets_for,
    select_pts,
    to_rgb,
)
from maskstream.pipelines.decode.packets import find_packets
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.media.mp4 import Mp4Error, read_fragments, read_header
from maskstream.shards.media.video_index import VideoIndex

from ...videos import write_frames

ORDINARY = {"x264-params": "keyint=24:bframes=2:scenecut=0"}
OPEN = {"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0"}


def write_video(path, *, codec="libx264", frames=90, width=96, height=64, options=None):
    """Moving textures; every frame is different."""
    rng = np.random.default_rng(5)
    texture = rng.integers(0, 255, (height * 2, width * 2, 3), dtype=np.uint8)
    texture = np.repeat(np.repeat(texture[::8, ::8], 8, 0), 8, 1)
    moved = (np.roll(texture, (i, 2 * i), (0, 1))[:height, :width] for i in range(frames))
    return write_frames(path, moved, codec, options=options)


def plainly(data):
    with av.open(io.BytesIO(data)) as container:
        return list(container.decode(video=0))


@pytest.fixture(scope="module", params=["train", "copy", "copy-open", "copy-hevc", "copy-vp9"])
def encoded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    kind = request.param.partition("-")[2]
    codec = {"hevc": "libx265", "vp9": "libvpx-vp9"}.get(kind, "libx264")
    options = {
        "hevc": {"x265-params": "keyint=20:bframes=2:log-level=none"},
        "vp9": {"g": "20", "deadline": "realtime", "cpu-used": "8"},
        "open": OPEN,
    }.get(kind, ORDINARY)
    path = write_video(folder / ("v.webm" if kind == "vp9" else "v.mp4"), codec=codec, options=options)
    return request.param, encode_video(path, PROFILES[request.param.partition("-")[0]])


SIZE = (96, 64)


def read_clip(encoded, numbers):
    index = encoded.index
    first, stop = index.gops_of(numbers)
    begin, end = int(index.offset[first]), int(index.offset[stop - 1] + index.size[stop - 1])
    return encoded.data[: index.header_size], encoded.data[begin:end], int(index.first_frame[first])


def test_every_start_and_stride_gives_the_frames_of_a_plain_decode(encoded):
    name, video = encoded
    whole = plainly(video.data)
    assert len(whole) == video.index.n_frames == 90
    if name.startswith("copy"):
        assert len(video.index.first_frame) > 2, "several entries, or the test says nothing about slices"
    compared = 0
    for stride in (1, 2, 3, 4, 7):
        for start in range(0, 90 - 5 * stride, 3):
            numbers = np.arange(6) * stride + start
            header, fragments, first = read_clip(video, numbers)
            decoded = decode_frames(header, memoryview(fragments), first, numbers, size=SIZE)
            for frame, number in zip(decoded.frames, numbers, strict=True):
                assert np.array_equal(frame.to_ndarray(), whole[number].to_ndarray()), (stride, start, number)
                compared += 1
            assert np.allclose(decoded.pts_s, numbers / 30, atol=1e-3)
    assert compared > 500


@pytest.mark.parametrize("damages", [0, 1, 2])
def test_the_kernel_finds_the_packets_that_the_boxes_name(encoded, damages):
    """It finds nothing where they are damaged or end too early, and never other packets."""
    name, video = encoded
    if name in ("copy-hevc", "copy-vp9"):
        return  # it is not asked
    draw, index, found = np.random.default_rng(damages), video.index, 0
    track = read_header(video.data[: index.header_size])
    for _ in range(200):
        numbers = np.sort(draw.integers(0, 90, 6))
        _, fragments, first = read_clip(video, numbers)
        whole, data = len(fragments), np.frombuffer(fragments, np.uint8).copy()
        data[draw.integers(0, min(800, whole), damages)] ^= 1 << draw.integers(0, 8, damages).astype(np.uint8)
        data = data[: int(whole * draw.uniform(0.8, 1.1))]
        data.setflags(write=False)
        sizes = track.default_duration, track.default_size, (track.extradata[4] & 3) + 1
        rows, pts = find_packets(data, whole, *sizes, first, numbers)
        try:
            packets = read_fragments(data.data, track, whole)
            expected = select_pts(packets, first, numbers)
            needed = select_packets_for(data.data, track, packets, expected)
        except Mp4Error:
            assert len(rows) == 0
            continue
        assert len(rows) > 0 or damages
        if len(rows):
            columns = packets.start[needed], packets.size[needed], packets.pts[needed]
            assert np.array_equal(rows, np.stack(columns, axis=1))
            assert np.array_equal(pts, expected)
            found += 1
    assert found > 20


def test_open_gops_are_there_when_they_are_tested(encoded):
    name, video = encoded
    assert video.index.lead.any() == (name in ("copy-open", "copy-hevc"))


def test_only_reference_frames_enter_the_decoder_at_stride_4(tmp_path):
    video = encode_video(write_video(tmp_path / "v.mp4"), PROFILES["train"])
    numbers = np.arange(8) * 4
    header, fragments, _ = read_clip(video, numbers)
    track = read_header(header)
    packets = read_fragments(memoryview(fragments), track)
    pts = np.sort(packets.pts)
    assert len(packets.pts) == 32
    assert len(select_packets_for(memoryview(fragments), track, packets, pts[numbers])) == 8
    assert len(select_packets_for(memoryview(fragments), track, packets, pts[numbers[:3]])) == 3
    assert len(select_packets_for(memoryview(fragments), track, packets, pts[[1, 5]])) == 5


@pytest.mark.parametrize("profile", ["train", "fast"])
def test_a_clip_of_anchors_needs_no_byte_behind_its_last_packet(tmp_path, profile):
    video = encode_video(write_video(tmp_path / "v.mp4"), PROFILES[profile])
    whole, index = plainly(video.data), video.index
    track, saved = read_header(index.header), 0
    for start in range(0, 88, 4):
        for last in range(start, 90, 4):
            numbers = np.arange(start, last + 1, 4)
            first, stop = index.gops_of(numbers)
            begin, end, limit = int(index.offset[first]), index.end_of(numbers, stop), int(index.size[first:stop].sum())
            fragments, at = memoryview(video.data)[begin:end], int(index.first_frame[first])
            packets = read_fragments(fragments, track, limit)
            got = decode_frames(index.header, fragments, at, numbers, size=SIZE, whole=limit)
            for frame, number in zip(got.frames, numbers, strict=True):
                assert np.array_equal(frame.to_ndarray(), whole[number].to_ndarray()), (start, last, number)
            shown = np.sort(packets.pts)[numbers - at]
            needed = int((packets.start + packets.size)[np.isin(packets.pts, shown)].max())
            assert needed <= len(fragments) <= needed + index.size[stop - 1] / 100 + 1
            saved += limit - len(fragments)
            with pytest.raises(Mp4Error, match="were read"):
                decode_frames(index.header, fragments[: needed - 1], at, numbers, size=SIZE, whole=limit)
    assert saved > 0
    end_of_gop = index.offset[0] + index.size[0]
    assert index.end_of(np.array([0, 4, 6]), 1) == end_of_gop
    for before in ({}, {"anchor_reach": np.zeros(0, np.int64)}):  # a shard, or a part of one, that does not have it
        old = VideoIndex.of(index.facts, index.words, {**replace(index, anchor_reach=None).lists, **before})
        assert old.anchor_reach is None
        assert old.end_of(np.array([0, 4]), 1) == end_of_gop


def test_a_repeated_frame_is_decoded_once_and_given_twice(encoded):
    _, video = encoded
    numbers = np.array([80, 88, 88, 88])
    header, fragments, first = read_clip(video, numbers)
    frames = decode_frames(header, memoryview(fragments), first, numbers, size=SIZE).frames
    assert frames[1] is frames[2] is frames[3]


@pytest.mark.parametrize("damage", ["cut in a packet", "cut in a box header", "empty", "noise", "other frames"])
def test_damaged_bytes_are_named_and_never_decoded_silently(tmp_path, damage):
    video = encode_video(write_video(tmp_path / "v.mp4"), PROFILES["train"])
    header, fragments, first = read_clip(video, np.array([0, 4]))
    if damage == "other frames":
        with pytest.raises(Mp4Error, match="are outside the"):
            decode_frames(header, memoryview(fragments), first, np.array([40]), size=SIZE)
        return
    broken = {
        "cut in a packet": fragments[: len(fragments) // 2],
        "cut in a box header": fragments[:3],
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(len(fragments)),
    }[damage]
    with pytest.raises((Mp4Error, DecodeError)):
        decode_frames(header, memoryview(broken), first, np.array([0, 4]), size=SIZE)


def test_flipped_bytes_in_a_header_are_a_packet_error():
    rng = np.random.default_rng(1)
    for size in (0, 5, 40, 700):
        with pytest.raises(Mp4Error):
            read_header(rng.bytes(size))


@pytest.mark.parametrize(("standard", "full"), [("bt601", False), ("bt709", False), ("bt601", True), ("bt709", True)])
def test_the_colour_matrix_is_swscale_s(standard, full):
    rng = np.random.default_rng(2)
    grey = rng.integers(30, 220, (48, 64, 3), dtype=np.uint8)
    smooth = np.repeat(np.repeat(grey[::16, ::16], 16, 0), 16, 1)
    frame = av.VideoFrame.from_ndarray(smooth, format="rgb24").reformat(
        format="yuv444p",
        dst_colorspace="ITU709" if standard == "bt709" else "ITU601",
        dst_color_range="JPEG" if full else "MPEG",
    )
    planes = np.stack([np.frombuffer(p, np.uint8).reshape(48, -1)[:, :64] for p in frame.planes], -1).astype(float)
    rgb = planes @ build_rgb_matrix(standard, full)[:, :3].T + build_rgb_matrix(standard, full)[:, 3]
    assert np.abs(rgb - smooth).max() < 4


@pytest.mark.parametrize("tag", ["bt601", "bt709", "full"])
def test_crop_resize_and_flip_are_near_the_plain_route_through_rgb(tag):
    cv2 = pytest.importorskip("cv2")
    yy, xx = np.mgrid[0:120, 0:160]
    picture = np.stack([xx, yy * 2, 255 - xx], -1).clip(20, 230).astype(np.uint8)
    space, span = ("ITU709" if tag == "bt709" else "ITU601"), ("JPEG" if tag == "full" else "MPEG")
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=space, dst_color_range=span
    )
    crop = Crop(x=20, y=10, width=100, height=90, flip=True)
    out = np.empty((2, 64, 64, 3), np.uint8)
    to_rgb([frame, frame], crop, (64, 64), out)
    wanted = cv2.flip(cv2.resize(picture[10:100, 20:120], (64, 64), interpolation=cv2.INTER_LINEAR), 1)
    assert np.abs(out[0].astype(int) - wanted).mean() < 2
    assert np.array_equal(out[0], out[1])
