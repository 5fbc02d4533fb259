"""The box reader: what libavformat's demuxer says of the same bytes, and an error for every kind of damage."""

import io

import av
import numpy as np
import pytest

from maskstream.shards.media.mp4 import Mp4Error, boxes, read_fragments, read_header


def fragmented(codec="libx264", frames=50, options=None, movflags="frag_keyframe+empty_moov+default_base_moof"):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"movflags": movflags + "+skip_trailer"}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {"x264-params": "keyint=20:bframes=3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            picture = np.full((48, 64, 3), (5 * i) % 256, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    moof = next(start for kind, start, *_ in boxes(memoryview(data), 0, len(data)) if kind == b"moof")
    return data, moof


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", None),
        ("libx265", {"x265-params": "keyint=20:log-level=none"}),
        ("libvpx-vp9", {"g": "20", "deadline": "realtime"}),
    ],
)
def test_packets_are_those_of_libavformat(codec, options):
    data, at = fragmented(codec, options=options)
    track = read_header(data[:at])
    packets = read_fragments(memoryview(data)[at:], track)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        theirs = [(p.pts, p.pos, p.size, p.is_keyframe) for p in container.demux(stream) if p.size]
        assert track.codec == stream.codec_context.name
        assert track.extradata == (stream.codec_context.extradata or b"")[: len(track.extradata)]
        assert track.timescale == stream.time_base.denominator
    ours = list(
        zip(packets.pts.tolist(), (packets.start + at).tolist(), packets.size.tolist(), packets.keyframe, strict=True)
    )
    assert len(ours) == 50
    assert ours == theirs
    assert packets.keyframe.sum() == 3


def test_every_cut_of_a_header_and_of_fragments_is_an_error():
    data, at = fragmented()
    track = read_header(data[:at])
    for stop in range(0, at, 7):
        with pytest.raises(Mp4Error):
            read_header(data[:stop])
    whole = {end - at for kind, _, _, end in boxes(memoryview(data), 0, len(data)) if kind == b"mdat"}
    for stop in range(0, len(data) - at, 11):
        if stop not in whole:
            with pytest.raises(Mp4Error):
                read_fragments(memoryview(data)[at : at + stop], track)


def test_flipped_bytes_give_an_error_or_packets_inside_the_data():
    data, at = fragmented()
    rng = np.random.default_rng(0)
    track = read_header(data[:at])
    errors = 0
    for _ in range(400):
        broken = bytearray(data)
        for place in rng.integers(0, 400, 3):
            broken[at + place] = rng.integers(256)
        try:
            packets = read_fragments(memoryview(broken)[at:], track)
            assert packets.start.min() >= 0
            assert (packets.start + packets.size).max() <= len(data) - at
        except Mp4Error:
            errors += 1
        header = bytearray(data[:at])
        header[rng.integers(at)] = rng.integers(256)
        try:
            read_header(bytes(header))
        except Mp4Error:
            errors += 1
    assert errors > 50
