"""Reads the sequence parameter set of H.264 as far as it says how many frames a decoder holds back (H.264, 7.3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass

_WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_OWN_ASPECT = 255


class UnknownSpsError(ValueError):
    """The bytes are no sequence parameter set that can be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sps:
    """says_reordering: whether it has the number of frames that a decoder holds back; without, decoders guess it."""

    says_reordering: bool


def read_sps(unit: bytes) -> Sps:
    """The facts of a sequence parameter set, a NAL unit. Raises UnknownSpsError if it is cut off or damaged."""
    try:
        return Sps(says_reordering=_says_reordering(_Bits(unit[1:])))
    except IndexError as error:
        raise UnknownSpsError("the sequence parameter set ends early") from error


class _Bits:
    """Reads bits, without the bytes 3 after two zeros, which only keep a start code from occurring."""

    def __init__(self, data: bytes) -> None:
        self._data = data.replace(b"\0\0\3", b"\0\0")
        self._at = 0

    def bits(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def number(self) -> int:
        """An unsigned number in Exp-Golomb code."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
        if zeros > 32:
            raise UnknownSpsError("a number is longer than 32 bits")
        return (1 << zeros) - 1 + self.bits(zeros)

    def signed(self) -> int:
        """A signed number in Exp-Golomb code."""
        code = self.number()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def skip(self, numbers: int) -> None:
        """Skip numbers in Exp-Golomb code."""
        for _ in range(numbers):
            self.number()


def _says_reordering(read: _Bits) -> bool:
    profile = read.bits(8)
    read.bits(16)  # constraints, level
    read.number()  # its id
    if profile in _WITH_CHROMA_FORMAT:
        is_444 = read.number() == 3
        read.bits(is_444)  # separate colour planes
        read.skip(2)  # bit depths
        read.bits(1)
        if read.bits(1):
            for n in range(12 if is_444 else 8):
                if read.bits(1):
                    _skip_scaling(read, 16 if n < 6 else 64)
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
    read.skip(2)  # width, height
    if not read.bits(1):  # not only frames
        read.bits(1)
    read.bits(1)
    if read.bits(1):
        read.skip(4)  # cropping
    return bool(read.bits(1)) and _vui_says_reordering(read)


def _skip_scaling(read: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + read.signed() + 256) % 256
        last = following or last


def _vui_says_reordering(read: _Bits) -> bool:
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
        raise UnknownSpsError(f"it has {count} buffers; 32 are legal")
    read.bits(8)
    for _ in range(count):
        read.skip(2)
        read.bits(1)
    read.bits(20)
    return True
