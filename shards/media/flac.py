"""FLAC streams with a seek point for every frame, so that a clip needs only the bytes of its frames.

The member is `fLaC`, a STREAMINFO, a SEEKTABLE with a point for every frame, and the frames (RFC 9639, sections 8 and
9). Any player reads it. To decode a run of whole frames, only the 34 bytes of STREAMINFO are needed in addition.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from maskstream.shards.arrays import Int32s, Int64s
from maskstream.shards.errors import DataError

from .limits import MAX_SAMPLE_RATE

MARKER = b"fLaC"
STREAMINFO, SEEKTABLE = 0, 3
STREAMINFO_BYTES, BLOCK_HEAD = 34, 4
PLACEHOLDER = 0xFFFFFFFFFFFFFFFF
_MAX_BLOCK, _MAX_SAMPLES = (1 << 16) - 1, (1 << 36) - 1
_CRC8 = [0] * 256
for _byte in range(256):
    _crc = _byte
    for _ in range(8):
        _crc = (_crc << 1 ^ 0x107) & 0x1FF if _crc & 0x80 else _crc << 1
    _CRC8[_byte] = _crc & 0xFF


class FlacError(DataError):
    """The bytes are not a FLAC stream of this form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlacHeader:
    """The header of a stream.

    size_bytes: Size of the header; the frames follow. stream_info: The 34 bytes that a decoder needs. points: int64 (P,
    2), sorted: the number of a frame's first sample, and the frame's offset in the member in bytes.
    """

    sample_rate: int
    channels: int
    bits: int
    n_samples: int
    md5: bytes
    stream_info: bytes
    size_bytes: int
    points: Int64s

    @classmethod
    def of(cls, facts: Mapping[str, int | float], lists: Mapping[str, Int64s], size_bytes: int) -> Self:
        """Return the header in the columns of a component of kind `sound`, of `size_bytes` bytes; it has no md5.

        Raises FlacError if they contradict each other, or are impossible for any stream.
        """
        names = ("sample_rate", "channels", "bits", "n_samples", "header_size", "frame_samples")
        rate, channels, bits, n_samples, begin, block = (int(facts[name]) for name in names)
        sizes = lists["frame_size"]
        legal = {
            "sample_rate": (rate, MAX_SAMPLE_RATE),
            "channels": (channels, 8),
            "bits": (bits, 32),
            "n_samples": (n_samples, _MAX_SAMPLES),
            "header_size": (begin, size_bytes),
            "frame_samples": (block, _MAX_BLOCK if len(sizes) > 1 else _MAX_SAMPLES),
        }
        for name, (value, most) in legal.items():
            if not 1 <= value <= most:
                raise FlacError(f"{name} is {value} in the manifest; expected 1 to {most}")
        if not len(sizes) or len(sizes) != -(-n_samples // block) or sizes.min() < 1 or sizes.max() > size_bytes:
            raise FlacError(
                f"the manifest lists {len(sizes)} frames of {block} samples, but {n_samples} samples in total"
            )
        if begin + int(sizes.sum()) != size_bytes:
            raise FlacError(
                f"the manifest lists {begin + int(sizes.sum())} bytes of header and frames, not {size_bytes}"
            )
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

    def columns(self, size_bytes: int) -> tuple[dict[str, int | float], dict[str, Int64s]]:
        """Return the facts and lists of a member with `size_bytes` bytes, which are needed to read and decode a part of
        it.

        Raises FlacError unless the seek table has a point for every frame.
        """
        samples, offsets = self.points.T
        block = int(samples[1]) if len(samples) > 1 else self.n_samples
        longest = int.from_bytes(self.stream_info[2:4], "big")
        if block > longest or (np.diff(samples, append=self.n_samples)[:-1] != block).any():
            raise FlacError(f"its seek table has {len(samples)} points, not one per frame of {longest} samples")
        facts: dict[str, int | float] = {
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "n_samples": self.n_samples,
            "bits": self.bits,
            "header_size": self.size_bytes,
            "frame_samples": block,
        }
        return facts, {"frame_size": np.diff(offsets, append=size_bytes)}

    def frames(self, first: int, stop: int, size_bytes: int) -> tuple[int, Int64s]:
        """Locate the frames that contain the samples [first, stop) of a member with `size_bytes` bytes.

        Returns the number of the first frame's first sample, and the frames' offsets with the end of the last, int64
        (frames + 1,).
        """
        at = max(int(np.searchsorted(self.points[:, 0], first, side="right")) - 1, 0)
        past = int(np.searchsorted(self.points[:, 0], stop, side="left"))
        edges = np.append(self.points[at:past, 1], size_bytes if past == len(self.points) else self.points[past, 1])
        return int(self.points[at, 0]), edges


def has_more_frames(data: bytes, most: int) -> bool:
    """Return True if FFmpeg may find more than `most` frames in `data`: it looks for headers with a correct checksum.

    Other bytes look like a header about once in 10 MB.
    """
    octets = np.frombuffer(data, np.uint8)
    ones = np.flatnonzero(octets[:-1] == 0xFF)
    starts = ones[octets[ones + 1] & 0xFE == 0xF8]
    return len(starts) > most and sum(_is_header(data, at) for at in starts.tolist()) > most


def _is_header(data: bytes, at: int) -> bool:
    """Return True if a frame's header (RFC 9639, section 9.1) is at byte `at`."""
    block, rate = data[at + 2] >> 4 if at + 4 < len(data) else 0, data[at + 2] & 15 if at + 4 < len(data) else 15
    if block == 0 or rate == 15:
        return False
    lead = data[at + 4]  # the first byte of the frame's number, which is coded like UTF-8
    ones = next((n for n in range(8) if not lead << n & 0x80), 8)
    end = at + 4 + max(ones, 1) + {6: 1, 7: 2}.get(block, 0) + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if ones == 1 or ones > 7 or end >= len(data):
        return False
    crc = 0
    for byte in data[at:end]:
        crc = _CRC8[crc ^ byte]
    return crc == data[end]


def join_flac_stream(frames: Sequence[tuple[int, bytes]], *, sample_rate: int, bits: int, samples: Int32s) -> bytes:
    """Return the stream of encoded frames (number of samples, bytes); samples: int32 (n, channels), the decoded
    frames.
    """
    block, largest = max(frames[0][0], 16), max(len(data) for _, data in frames)
    smallest = min(len(data) for _, data in frames)
    n, channels = samples.shape
    info = _stream_info(block, smallest, largest, sample_rate, channels, bits, n, _hash_samples(samples, bits))
    points = b""
    sample = offset = 0
    for length, data in frames:
        points += sample.to_bytes(8, "big") + offset.to_bytes(8, "big") + length.to_bytes(2, "big")
        sample, offset = sample + length, offset + len(data)
    blocks = _block(STREAMINFO, info, last=False) + _block(SEEKTABLE, points, last=True)
    return MARKER + blocks + b"".join(data for _, data in frames)


def parse_flac_header(data: bytes) -> FlacHeader:
    """Return the header of a stream that begins with `data`. Raises FlacError if it is not FLAC, or its header is
    longer.
    """
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
        points=_read_seek_points(found.get(SEEKTABLE, b""), position),
    )


def encode_for_md5(samples: Int32s, bits: int) -> bytes:
    """Convert samples, int32 (n, channels), to the input of a stream's MD5: interleaved little-endian integers of whole
    bytes.
    """
    width = -(-bits // 8)
    return np.ascontiguousarray(samples, dtype="<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()


def _stream_info(
    block: int, smallest: int, largest: int, rate: int, channels: int, bits: int, n_samples: int, md5: bytes
) -> bytes:
    """Return the 34 bytes (RFC 9639, section 8.2); block in samples, smallest and largest frame in bytes."""
    facts = rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | n_samples
    info = block.to_bytes(2, "big") * 2 + int(smallest).to_bytes(3, "big") + int(largest).to_bytes(3, "big")
    return info + facts.to_bytes(8, "big") + md5


def _block(kind: int, body: bytes, *, last: bool) -> bytes:
    return bytes([kind | last << 7]) + len(body).to_bytes(3, "big") + body


def _read_seek_points(table: bytes, begin: int) -> Int64s:
    records = np.frombuffer(table, dtype=[("sample", ">u8"), ("offset", ">u8"), ("length", ">u2")])
    records = records[records["sample"] != PLACEHOLDER]
    points = np.stack([records["sample"].astype(np.int64), records["offset"].astype(np.int64) + begin], axis=1)
    return points if len(points) and points[0, 0] == 0 else np.concatenate([[[0, begin]], points])


def _hash_samples(samples: Int32s, bits: int) -> bytes:
    return hashlib.md5(encode_for_md5(samples, bits), usedforsecurity=False).digest()
