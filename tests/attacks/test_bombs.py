"""Small members that decode to much: they are refused before the memory is taken."""

from __future__ import annotations

import io
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from maskstream.pipelines.decode.sound import SoundError, decode_segment, read_segment
from maskstream.shards.errors import DataError
from maskstream.shards.media.flac import FlacHeader, has_more_frames, parse_flac_header
from maskstream.shards.media.image_header import check_image
from maskstream.shards.media.mp4 import Mp4Error, read_fragments, read_header
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.local import LocalStore

from .forge import few_samples


def picture(form: str, width: int = 40, height: int = 24) -> bytes:
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8), (width, height))
    return cv2.imencode(f".{form}", smooth)[1].tobytes()


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "ppm"])
def test_a_picture_that_says_more_pixels_than_the_manifest_is_not_decoded(form: str) -> None:
    data = picture(form)
    check_image(data, 40, 24)
    for width, height in ((41, 24), (40, 25), (24, 40), (0, 24), (-40, -24), (1 << 15, 1 << 15)):
        with pytest.raises(DataError, match="pixels"):
            check_image(data, width, height)
    for stop in range(len(data) // 2):
        try:
            check_image(data[:stop], 40, 24)
        except DataError:
            continue
        assert stop > 20


def test_a_picture_of_another_form_is_not_decoded() -> None:
    for form in ("bmp", "tiff"):
        with pytest.raises(DataError, match="is not a JPEG, PNG, WebP, PPM or PGM"):
            check_image(picture(form), 40, 24)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8), (40, 24))
    data = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    check_image(data, 40, 24)
    with pytest.raises(DataError, match="scans"):
        check_image(data + b"\xff\xda\x00\x02" * 300, 40, 24)


def silence(frames: int) -> tuple[bytes, FlacHeader, int]:
    """FLAC frames of silence in 8 channels, their header, and the samples of a frame; decoding makes each 64 KiB."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=48000, layout="7.1", format="s16")
        for _ in range(frames):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8 * 4608), np.int16), format="s16", layout="7.1")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    header = parse_flac_header(file.getvalue())
    return file.getvalue()[header.size_bytes :], header, int.from_bytes(header.stream_info[2:4], "big")


def test_a_flac_of_more_frames_than_the_manifest_lists_is_not_decoded(tmp_path: Path) -> None:
    frames, header, block = silence(200)
    listed = -(-header.n_samples // block)
    assert (has_more_frames(frames, listed), has_more_frames(frames, listed - 1)) == (False, True)
    (tmp_path / "x.tar").write_bytes(frames)
    forged = replace(header, n_samples=block, size_bytes=0, points=np.zeros((1, 2), np.int64))
    segment = read_segment(LocalStore(tmp_path), Range("x.tar", 0, len(frames)), forged, 0, block, rate=48000)
    tracemalloc.start()
    with pytest.raises(SoundError, match="has more frames than the 1 in the manifest"):
        decode_segment(segment, rate=48000, gain=1.0)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(frames) + (1 << 16)
    tracemalloc.stop()


def test_a_sound_of_noise_has_few_bytes_that_look_like_a_frame() -> None:
    noise = np.random.default_rng(0).bytes(1 << 22)
    assert not has_more_frames(noise, 8)


def test_a_fragment_that_counts_more_packets_than_it_has_bytes_is_refused(tmp_path: Path) -> None:
    """Each run declares as many packets as there are bytes, without a table: their lists would be quadratic."""
    member = few_samples("video", tmp_path)[0].members["mp4"]
    header = member.data[: int(member.facts["header_size"])]
    n = 20_000
    run = struct.pack(">I4sIII", 20, b"trun", 1, n // 3, 0)
    runs = run * (n // 20)
    traf = struct.pack(">I4s", 8 + 16 + len(runs), b"traf") + struct.pack(">I4sII", 16, b"tfhd", 0x020000, 1) + runs
    moof = struct.pack(">I4s", 8 + len(traf), b"moof") + traf
    tracemalloc.start()
    with pytest.raises(Mp4Error, match="fit"):
        read_fragments(memoryview(moof), read_header(header))
    assert tracemalloc.get_traced_memory()[1] < 100 * len(moof)
    tracemalloc.stop()
