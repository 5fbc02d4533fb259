"""Read the sequence parameter set of H.264 (H.264, 7.3.2.1) up to the number of frames that a decoder holds back, and
remove its cropping.

With a header without cropping, a decoder returns everything that is coded, in multiples of 16 pixels. A cache of GPU
decoders that compares coded with displayed sizes then finds its decoder again. The displayed part keeps its position,
and packets are unchanged.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

from .mp4 import VISUAL_ENTRY_SIZE, Mp4Error, child, sample_entry

_WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_OWN_ASPECT = 255


class UnknownSpsError(ValueError):
    """The bytes are not a readable sequence parameter set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sps:
    """Facts of a sequence parameter set.

    says_reordering: Whether it declares the number of frames that a decoder holds back; otherwise decoders guess it.
    chroma_format: 0 to 3 for 4:0:0, 4:2:0, 4:2:2, 4:4:4. bit_depth: The larger of luma and chroma. width, height: Coded
    size, multiples of 16 pixels. crop: Columns and rows that are not displayed, (left, right, top, bottom), in steps of
    `crop_unit` (columns, rows) pixels. crop_at: First bit and end of the cropping fields in the bytes after the NAL
    header, without emulation prevention.
    """

    says_reordering: bool
    chroma_format: int
    bit_depth: int
    width: int
    height: int
    crop: tuple[int, int, int, int]
    crop_unit: tuple[int, int]
    crop_at: tuple[int, int]

    @property
    def shown(self) -> tuple[int, int]:
        """Displayed width and height in pixels."""
        left, right, top, bottom = self.crop
        across, down = self.crop_unit
        return self.width - across * (left + right), self.height - down * (top + bottom)


def read_sps(unit: bytes) -> Sps:
    """Parse a sequence parameter set, a NAL unit. Raises UnknownSpsError if it is cut off or damaged."""
    try:
        return _read_sps(_Bits(_unescape_payload(unit)))
    except IndexError as error:
        raise UnknownSpsError("the sequence parameter set ends early") from error


def remove_cropping(unit: bytes) -> bytes:
    """Return the sequence parameter set without cropping, so that a decoder returns everything that is coded.

    Raises UnknownSpsError if it is damaged.
    """
    sps, payload = read_sps(unit), _unescape_payload(unit)
    start, stop = sps.crop_at
    end = len(payload) * 8 - 1
    while not payload[end >> 3] >> (7 - (end & 7)) & 1:  # the stop bit, before zeros
        end -= 1
    bits = "".join(f"{byte:08b}" for byte in payload)
    kept = bits[:start] + "0" + bits[stop:end] + "1"
    kept += "0" * (-len(kept) % 8)
    return unit[:1] + _escape_payload(bytes(int(kept[at : at + 8], 2) for at in range(0, len(kept), 8)))


def _unescape_payload(unit: bytes) -> bytes:
    """Return the bytes after the NAL header, without emulation prevention bytes."""
    return unit[1:].replace(b"\0\0\3", b"\0\0")


def _escape_payload(payload: bytes) -> bytes:
    """Return the payload with emulation prevention (H.264, 7.4.1.1)."""
    out = bytearray()
    for byte in payload:
        if byte <= 3 and out[-2:] == b"\0\0":
            out.append(3)
        out.append(byte)
    return bytes(out)


class _Bits:
    """Reads bits of bytes without emulation prevention; `at` is the position of the next one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def bits(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self.at >> 3] >> (7 - (self.at & 7)) & 1
            self.at += 1
        return value

    def number(self) -> int:
        """Read an unsigned number in Exp-Golomb code."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
        if zeros > 32:
            raise UnknownSpsError("a number is longer than 32 bits")
        return (1 << zeros) - 1 + self.bits(zeros)

    def signed(self) -> int:
        """Read a signed number in Exp-Golomb code."""
        code = self.number()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def skip(self, numbers: int) -> None:
        """Skip numbers in Exp-Golomb code."""
        for _ in range(numbers):
            self.number()


def _read_sps(read: _Bits) -> Sps:
    profile = read.bits(8)
    read.bits(16)  # constraints, level
    read.number()  # its id
    chroma, depth = _sample_format(read) if profile in _WITH_CHROMA_FORMAT else (1, 8)
    read.number()  # log2 of the largest frame number
    order = read.number()
    if order == 0:
        read.number()
    elif order == 1:
        read.bits(1)
        read.skip(2)
        read.skip(read.number())
    read.number()  # reference frames
    read.bits(1)
    width, rows = 16 * (read.number() + 1), 16 * (read.number() + 1)
    only_frames = read.bits(1)
    if not only_frames:
        read.bits(1)
    read.bits(1)
    start = read.at
    left, right, top, bottom = [read.number() for _ in range(4)] if read.bits(1) else (0, 0, 0, 0)
    stop = read.at
    per_map = 2 - only_frames
    return Sps(
        says_reordering=bool(read.bits(1)) and _has_reordering_vui(read),
        chroma_format=chroma,
        bit_depth=depth,
        width=width,
        height=rows * per_map,
        crop=(left, right, top, bottom),
        crop_unit=(2 if chroma in (1, 2) else 1, (2 if chroma == 1 else 1) * per_map),
        crop_at=(start, stop),
    )


def _sample_format(read: _Bits) -> tuple[int, int]:
    """Read the chroma format and the bit depth."""
    chroma = read.number()
    read.bits(chroma == 3)  # separate colour planes
    depth = 8 + max(read.number(), read.number())
    read.bits(1)
    if read.bits(1):
        for n in range(12 if chroma == 3 else 8):
            if read.bits(1):
                _skip_scaling(read, 16 if n < 6 else 64)
    return chroma, depth


def _skip_scaling(read: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + read.signed() + 256) % 256
        last = following or last


def _has_reordering_vui(read: _Bits) -> bool:
    if read.bits(1) and read.bits(8) == _OWN_ASPECT:
        read.bits(32)
    if read.bits(1):  # overscan
        read.bits(1)
    if read.bits(1):  # video signal
        read.bits(4)
        if read.bits(1):
            read.bits(24)
    if read.bits(1):  # place of chroma
        read.skip(2)
    if read.bits(1):  # timing
        read.bits(65)
    has_hrd = [_skip_hrd(read), _skip_hrd(read)]
    if any(has_hrd):
        read.bits(1)
    read.bits(1)
    return bool(read.bits(1))


def _skip_hrd(read: _Bits) -> bool:
    if not read.bits(1):
        return False
    count = read.number() + 1
    if count > 32:
        raise UnknownSpsError(f"it has {count} buffers; at most 32 are allowed")
    read.bits(8)
    for _ in range(count):
        read.skip(2)
        read.bits(1)
    read.bits(20)
    return True


_SIZE_AT = 24
"""Offset of width and height in a visual sample entry (ISO 14496-12, 12.1.3)."""
_ABOVE = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")


@lru_cache(maxsize=1024)
def remove_header_cropping(header: bytes) -> bytes:
    """Return the header `ftyp moov` of an H.264 video with cropping removed, unless it crops at the left or top.

    Raises Mp4Error if the boxes are not such a header, UnknownSpsError if its parameter sets cannot be read.
    """
    data = memoryview(header)
    spans = [child(data, (0, len(header)), *_ABOVE[: n + 1]) for n in range(len(_ABOVE))]
    entry = sample_entry(data, spans[-1])[1:]
    avcc = child(data, (entry[0] + VISUAL_ENTRY_SIZE, entry[1]), b"avcC")
    extradata = header[slice(*avcc)]
    units, rest = _split_units(extradata)
    found = [read_sps(unit) for unit in units]
    if len({(one.width, one.height) for one in found}) != 1 or any(one.crop[0] or one.crop[2] for one in found):
        return header
    if not any(any(one.crop) for one in found):
        return header
    packed = b"".join(struct.pack(">H", len(unit)) + unit for unit in map(remove_cropping, units))
    changed = bytearray(header)
    changed[slice(*avcc)] = extradata[:6] + packed + rest
    struct.pack_into(">HH", changed, entry[0] + _SIZE_AT, found[0].width, found[0].height)
    for start, _ in (*spans, entry, avcc):
        _add_to_size(changed, start, len(changed) - len(header))
    return bytes(changed)


def _split_units(extradata: bytes) -> tuple[list[bytes], bytes]:
    """Return the sequence parameter sets of an avcC, and the remaining bytes."""
    try:
        units, at = [], 6
        for _ in range(extradata[5] & 31):
            size = int.from_bytes(extradata[at : at + 2], "big")
            units.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    except IndexError as error:
        raise UnknownSpsError("avcC ends early") from error
    if not units or at > len(extradata):
        raise UnknownSpsError(f"avcC has {len(extradata)} bytes, too few for its parameter sets")
    return units, extradata[at:]


def _add_to_size(data: bytearray, payload: int, by: int) -> None:
    """Add `by` bytes to the size of the box whose payload starts at `payload`."""
    at = payload - 8
    size = struct.unpack_from(">I", data, at)[0]
    if size == 1 or size + by < 8:
        raise Mp4Error(f"a header box at byte {at} has the size {size}; expected a 32-bit size")
    struct.pack_into(">I", data, at, size + by)
