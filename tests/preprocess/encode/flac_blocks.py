"""FLAC streams whose blocks differ in size, which FFmpeg and libFLAC read and no common encoder writes (RFC 9639)."""

from __future__ import annotations

import io

import av
import numpy as np
import numpy.typing as npt


def variable_flac(samples: npt.NDArray[np.int16], rate: int, sizes: list[int]) -> bytes:
    """Mono samples (n,) as a FLAC with blocks of `sizes` in turn, numbered by samples, without a seek table."""
    frames: list[bytes] = []
    at, turn, info = 0, 0, b""
    while at < len(samples):
        part = samples[at : at + sizes[turn % len(sizes)]]
        header, frame = _one_frame(part, rate)
        info = header if not frames else info
        frames.append(_numbered(frame, at))
        at, turn = at + len(part), turn + 1
    used = sorted({min(size, len(samples)) for size in sizes})
    stream_info = used[0].to_bytes(2, "big") + used[-1].to_bytes(2, "big") + bytes(6) + info[10:13]
    bits_and_count = (int.from_bytes(info[13:18], "big") >> 36 << 36 | len(samples)).to_bytes(5, "big")
    body = stream_info + bits_and_count + bytes(16)
    return b"fLaC" + bytes([0x80]) + len(body).to_bytes(3, "big") + body + b"".join(frames)


def _one_frame(part: npt.NDArray[np.int16], rate: int) -> tuple[bytes, bytes]:
    """STREAMINFO and the only frame of a stream of one block."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        options = {"frame_size": str(max(len(part), 16)), "compression_level": "2"}
        stream = container.add_stream("flac", rate=rate, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), "s16", "mono")
        frame.sample_rate, frame.pts = rate, 0
        packets = [*stream.encode(frame), *stream.encode(None)]
        found = [bytes(packet) for packet in packets if packet.size]
        info = bytes(stream.codec_context.extradata or b"")
    assert len(found) == 1
    return info, found[0]


def _numbered(frame: bytes, sample: int) -> bytes:
    """The frame with the number of its first sample in place of its own number 0."""
    assert frame[:2] == b"\xff\xf8"
    assert frame[4] == 0
    behind = 5 + {6: 1, 7: 2}.get(frame[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(frame[2] & 15, 0)
    head = b"\xff\xf9" + frame[2:4] + _coded(sample) + frame[5:behind]
    body = head + bytes([_crc(head, 8, 0x07)]) + frame[behind + 1 : -2]
    return body + _crc(body, 16, 0x8005).to_bytes(2, "big")


def _coded(number: int) -> bytes:
    """As UTF-8 codes a character, up to 36 bits."""
    if number < 0x80:
        return bytes([number])
    for n in range(2, 8):
        if number < 1 << (5 * n + 1):
            tail = [0x80 | number >> 6 * i & 0x3F for i in reversed(range(n - 1))]
            return bytes([0xFF & (0xFF00 >> n) | number >> 6 * (n - 1), *tail])
    raise ValueError(number)


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value = 0
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> bits - 1 else 0)) & (1 << bits) - 1
    return value
