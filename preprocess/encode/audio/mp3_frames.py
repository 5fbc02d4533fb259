"""Counts the frames of an MP3 file, and reads the counts that its Xing, Info or VBRI header declares."""

from __future__ import annotations

from dataclasses import dataclass
from mmap import mmap

_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates in kbit/s by (version, layer), for the bit rate indexes 1 to 14 (ISO 11172-3, ISO 13818-3)."""
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Sample rates in Hz by the two version bits: MPEG 1, 2 and 2.5."""
_HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Frame:
    """The contents of a frame header; `kind` (version, layer, rate) is the same for all frames of a stream."""

    kind: tuple[int, int, int]
    size_bytes: int
    mono: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Mp3Frames:
    """The frame counts of a file.

    n: complete frames, without that of the Xing, Info or VBRI header. missing_bytes: how many the last frame lacks.
    size_bytes: bytes from the header's frame to the end of the file. n_declared, bytes_declared: the same counts as the
    header declares them; None without a declaration.
    """

    n: int
    missing_bytes: int
    size_bytes: int
    n_declared: int | None
    bytes_declared: int | None


def mp3_frames(data: bytes | mmap) -> Mp3Frames | None:
    """Count the frames; None if there are none, or their headers omit the bit rate (free format)."""
    begin = _first(data, id3_end(data))
    first = None if begin is None else _frame(data[begin : begin + _HEAD_BYTES])
    if begin is None or first is None:
        return None
    n_declared, bytes_declared, is_header = _declared(data[begin : begin + first.size_bytes], first)
    at, n, missing = begin, 0, 0
    while at + _HEAD_BYTES <= len(data):
        frame = _frame(data[at : at + _HEAD_BYTES])
        if frame is None or frame.kind != first.kind:
            again = _first(data, at, first.kind)
            if again is None:
                break
            at = again
            continue
        missing = max(0, at + frame.size_bytes - len(data))
        if missing:
            break
        n, at = n + 1, at + frame.size_bytes
    return Mp3Frames(
        n=n - is_header,
        missing_bytes=missing,
        size_bytes=len(data) - begin,
        n_declared=n_declared,
        bytes_declared=bytes_declared,
    )


def id3_end(data: bytes | mmap) -> int:
    """The offset of the first byte after the ID3v2 tags; 0 without tags."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        a, b, c, d = data[at + 6 : at + 10]
        footer = 10 if data[at + 5] & 0x10 else 0
        at += 10 + footer + (a << 21 | b << 14 | c << 7 | d)
    return at


def _first(data: bytes | mmap, at: int, kind: tuple[int, int, int] | None = None) -> int | None:
    """The offset, `at` or later, of the first frame that another frame of its kind follows; None if there is none."""
    while (at := data.find(b"\xff", at)) >= 0:
        frame = _frame(data[at : at + _HEAD_BYTES])
        if frame is not None and kind in (None, frame.kind):
            after = _frame(data[at + frame.size_bytes : at + frame.size_bytes + _HEAD_BYTES])
            if after is not None and after.kind == frame.kind:
                return at
        at += 1
    return None


def _frame(head: bytes) -> _Frame | None:
    """The frame with the header `head`; None if `head` is no frame header, or has the free format."""
    if len(head) < _HEAD_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return None
    first_version = 1 if version == 3 else 2
    bits, rate = 1000 * _KBPS[first_version, layer][index - 1], _RATES[version][rate_index]
    if layer == 1:
        size = (12 * bits // rate + padding) * 4
    else:
        size = (72 if layer == 3 and first_version == 2 else 144) * bits // rate + padding
    return _Frame(kind=(version, layer, rate), size_bytes=size, mono=head[3] >> 6 == 3)


def _declared(body: bytes, frame: _Frame) -> tuple[int | None, int | None, bool]:
    """Declared frames, declared bytes, and whether the first frame is such a header instead of sound."""
    side_info = (17, 32) if frame.kind[0] == 3 else (9, 17)
    at = _HEAD_BYTES + side_info[not frame.mono]
    if body[at : at + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(body[at + 4 : at + 8], "big")
        fields = [int.from_bytes(body[p : p + 4], "big") for p in (at + 8, at + 12)]
        n = fields[0] if flags & 1 else 0
        size = fields[bool(flags & 1)] if flags & 2 else 0
        return n or None, size or None, True
    if body[36:40] == b"VBRI":
        size, n = (int.from_bytes(body[p : p + 4], "big") for p in (46, 50))
        return n or None, size or None, True
    return None, None, False
