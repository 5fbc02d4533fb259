"""FLAC streams with a seek point for every frame, so that a clip needs only the bytes of its frames.

The member is `fLaC`, a STREAMINFO, a SEEKTABLE with a point for every frame, and the frames (RFC 9639, sections 8 and
9). Any player reads it. Decoding a run of whole frames needs only the 34 bytes of STREAMINFO besides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

MARKER = b"fLaC"
STREAMINFO, SEEKTABLE = 0, 3
STREAMINFO_BYTES, POINT_BYTES, BLOCK_HEAD = 34, 18, 4
PLACEHOLDER = 0xFFFFFFFFFFFFFFFF


class FlacError(Exception):
    """The bytes are not a FLAC stream of this form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlacHeader:
    """The header of a stream.

    size_bytes: the header's size; the frames follow. stream_info: the 34 bytes that a decoder needs. points: int64 (P,
    2), sorted: the number of a frame's first sample, and the frame's offset in the member in bytes.
    """

    sample_rate: int
    channels: int
    bits: int
    n_samples: int
    md5: bytes
    stream_info: bytes
    size_bytes: int
    points: npt.NDArray[np.int64]

    @classmethod
    def of(cls, facts: Mapping[str, int | float], lists: Mapping[str, npt.NDArray[np.int64]]) -> Self:
        """The header in the columns of a component of kind `sound`; it has no md5."""
        names = ("sample_rate", "channels", "bits", "n_samples", "header_size", "frame_samples")
        rate, channels, bits, n_samples, begin, block = (int(facts[name]) for name in names)
        sizes = lists["frame_size"]
        starts = np.cumsum(sizes) - sizes
        points = np.stack([np.arange(len(sizes), dtype=np.int64) * block, starts + begin], axis=1)
        longest = max(min(block, n_samples), 16)
        return cls(
            sample_rate=rate,
            channels=channels,
            bits=bits,
            n_samples=n_samples,
            md5=b"",
            stream_info=_stream_info(longest, sizes.min(), sizes.max(), rate, channels, bits, n_samples, bytes(16)),
            size_bytes=begin,
            points=points,
        )

    def columns(self, size_bytes: int) -> tuple[dict[str, int | float], dict[str, npt.NDArray[np.int64]]]:
        """The facts and lists of a member with `size_bytes` bytes, with which a part of it can be read and decoded.

        Raises FlacError unless the seek table has a point for every frame.
        """
        samples, offsets = self.points.T
        block = int(samples[1]) if len(samples) > 1 else self.n_samples
        longest = int.from_bytes(self.stream_info[2:4], "big")
        if block > longest or (np.diff(samples, append=self.n_samples)[:-1] != block).any():
            raise FlacError(f"its seek table has {len(samples)} points, not one for every frame of {longest} samples")
        facts: dict[str, int | float] = {
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "n_samples": self.n_samples,
            "bits": self.bits,
            "header_size": self.size_bytes,
            "frame_samples": block,
        }
        return facts, {"frame_size": np.diff(offsets, append=size_bytes)}

    def frames(self, first: int, stop: int, size_bytes: int) -> tuple[int, npt.NDArray[np.int64]]:
        """The frames that hold the samples [first, stop) of a member with `size_bytes` bytes.

        Returns the number of the first frame's first sample, and the frames' offsets with the end of the last, int64
        (frames + 1,).
        """
        at = max(int(np.searchsorted(self.points[:, 0], first, side="right")) - 1, 0)
        past = int(np.searchsorted(self.points[:, 0], stop, side="left"))
        edges = np.append(self.points[at:past, 1], size_bytes if past == len(self.points) else self.points[past, 1])
        return int(self.points[at, 0]), edges


def flac_stream(
    frames: Sequence[tuple[int, bytes]], *, sample_rate: int, bits: int, samples: npt.NDArray[np.int32]
) -> bytes:
    """The stream of encoded frames (number of samples, bytes); samples: int32 (n, channels), the decoded frames."""
    block, largest = max(frames[0][0], 16), max(len(data) for _, data in frames)
    smallest = min(len(data) for _, data in frames)
    n, channels = samples.shape
    info = _stream_info(block, smallest, largest, sample_rate, channels, bits, n, _md5(samples, bits))
    points = b""
    sample = offset = 0
    for length, data in frames:
        points += sample.to_bytes(8, "big") + offset.to_bytes(8, "big") + length.to_bytes(2, "big")
        sample, offset = sample + length, offset + len(data)
    blocks = _block(STREAMINFO, info, last=False) + _block(SEEKTABLE, points, last=True)
    return MARKER + blocks + b"".join(data for _, data in frames)


def flac_header(data: bytes) -> FlacHeader:
    """The header of a stream that begins with `data`. Raises FlacError if it is no FLAC, or its header is longer."""
    if data[:4] != MARKER:
        raise FlacError("does not begin with fLaC")
    position, last = len(MARKER), False
    found: dict[int, bytes] = {}
    while not last:
        head = data[position : position + BLOCK_HEAD]
        size = int.from_bytes(head[1:], "big")
        body = data[position + BLOCK_HEAD : position + BLOCK_HEAD + size]
        if len(head) < BLOCK_HEAD or len(body) < size:
            raise FlacError(f"its header is truncated after {len(data)} bytes")
        found[head[0] & 0x7F] = body
        position, last = position + BLOCK_HEAD + size, bool(head[0] & 0x80)
    info = found.get(STREAMINFO, b"")
    if len(info) != STREAMINFO_BYTES:
        raise FlacError("has no STREAMINFO")
    facts = int.from_bytes(info[10:18], "big")
    return FlacHeader(
        sample_rate=facts >> 44,
        channels=(facts >> 41 & 7) + 1,
        bits=(facts >> 36 & 31) + 1,
        n_samples=facts & (1 << 36) - 1,
        md5=info[18:],
        stream_info=info,
        size_bytes=position,
        points=_points(found.get(SEEKTABLE, b""), position),
    )


def md5_matches(header: FlacHeader, samples: npt.NDArray[np.int32]) -> bool:
    """Whether int32 (n, channels) are the samples that the stream encodes."""
    return _md5(samples, header.bits) == header.md5


def _stream_info(
    block: int, smallest: int, largest: int, rate: int, channels: int, bits: int, n_samples: int, md5: bytes
) -> bytes:
    """The 34 bytes (RFC 9639, section 8.2); block in samples, smallest and largest frame in bytes."""
    facts = rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | n_samples
    info = block.to_bytes(2, "big") * 2 + int(smallest).to_bytes(3, "big") + int(largest).to_bytes(3, "big")
    return info + facts.to_bytes(8, "big") + md5


def _block(kind: int, body: bytes, *, last: bool) -> bytes:
    return bytes([kind | last << 7]) + len(body).to_bytes(3, "big") + body


def _points(table: bytes, begin: int) -> npt.NDArray[np.int64]:
    records = np.frombuffer(table, dtype=[("sample", ">u8"), ("offset", ">u8"), ("length", ">u2")])
    records = records[records["sample"] != PLACEHOLDER]
    points = np.stack([records["sample"].astype(np.int64), records["offset"].astype(np.int64) + begin], axis=1)
    return points if len(points) and points[0, 0] == 0 else np.concatenate([[[0, begin]], points])


def _md5(samples: npt.NDArray[np.int32], bits: int) -> bytes:
    """The MD5 of the samples as interleaved signed little-endian integers of whole bytes."""
    width = -(-bits // 8)
    data = np.ascontiguousarray(samples, dtype="<i4").view(np.uint8).reshape(-1, 4)[:, :width]
    return hashlib.md5(data.tobytes(), usedforsecurity=False).digest()
