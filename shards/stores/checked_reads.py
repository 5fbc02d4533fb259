"""Reads ranges of local files and checks their blocks in compiled code, without a Python call per range.

`pread` and `memcpy` are the C library's. The sums are xxh3_64, as its specification defines it for more than 240 bytes
(https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).
"""

from typing import Any

import numpy as np
from numba import types

from maskstream.shards.arrays import Int64s, UInt8s, UInt64s
from maskstream.shards.jit import kernel

BLOCK, SUM = 4096, 8
"""Same as in block_sums.py; repeated because a kernel only sees numbers of the same file."""
_AT_ONCE = 1 << 15
"""Most bytes that one call reads for several consecutive ranges."""
_SHORT = 240
_LOW, _HALF = np.uint64(0xFFFF_FFFF), np.uint64(32)
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _words(first: int, count: int) -> UInt64s:
    return np.frombuffer(_SECRET, "<u8", count, first).astype(np.uint64)


_KEYS, _LAST, _MERGE = _words(0, 24), _words(121, 8), _words(11, 8)
_P32, _P64, _Q64, _R64 = 0x9E3779B1, 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_BEGIN = np.array([0xC2B2AE3D, _P64, _Q64, _R64, 0x85EBCA77C2B2AE63, 0x85EBCA77, 0x27D4EB2F165667C5, _P32], np.uint64)
_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.intp, types.intp, types.intp))
_memcpy: Any = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.intp))


@kernel
def _mix(one: np.uint64, other: np.uint64, words: UInt64s, at: int, keys: UInt64s, key: int) -> tuple[Any, Any]:
    """Add two input words to two neighbouring lanes of the state, uint64 each.

    Each lane receives the other lane's word, and the product of the two halves of its own word XORed with its key.
    """
    first, second = words[at] ^ keys[key], words[at + 1] ^ keys[key + 1]
    one += words[at + 1] + (first & _LOW) * (first >> _HALF)
    return one, other + words[at] + (second & _LOW) * (second >> _HALF)


@kernel
def _add_stripes(words: UInt64s, first: int, count: int, keys: UInt64s, state: UInt64s) -> None:
    """Add `count` stripes of eight words, starting at word `first`, to the eight lanes of the state, uint64 (8,)."""
    # Local variables stay in registers; array elements do not.
    a, b, c, d, e, f, g, h = state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7]
    for key in range(count):
        at = first + 8 * key
        a, b = _mix(a, b, words, at, keys, key)
        c, d = _mix(c, d, words, at + 2, keys, key + 2)
        e, f = _mix(e, f, words, at + 4, keys, key + 4)
        g, h = _mix(g, h, words, at + 6, keys, key + 6)
    state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7] = a, b, c, d, e, f, g, h


@kernel
def _multiply_folded(one: np.uint64, other: np.uint64) -> np.uint64:
    """Return the XOR of the upper and lower halves of the 128-bit product of two 64-bit numbers."""
    across = (one >> _HALF) * (other & _LOW)
    middle = ((one & _LOW) * (other & _LOW) >> _HALF) + (across & _LOW) + (one & _LOW) * (other >> _HALF)
    return ((across >> _HALF) + (middle >> _HALF) + (one >> _HALF) * (other >> _HALF)) ^ one * other


@kernel
def sum_of(data: UInt8s) -> np.uint64:
    """Compute the xxh3_64 of more than 240 bytes, uint8 (n,)."""
    n, state = len(data), _BEGIN.copy()
    words, last = data[: n // 8 * 8].view(np.uint64), data[n - 64 :].copy().view(np.uint64)
    whole = (n - 1) // 1024
    for block in range(whole):
        _add_stripes(words, 128 * block, 16, _KEYS, state)
        for i in range(8):
            state[i] = (state[i] ^ state[i] >> np.uint64(47) ^ _KEYS[16 + i]) * np.uint64(_P32)
    _add_stripes(words, 128 * whole, (n - 1 - 1024 * whole) // 64, _KEYS, state)
    _add_stripes(last, 0, 1, _LAST, state)
    total = np.uint64(n) * np.uint64(_P64)
    for i in range(4):
        total += _multiply_folded(state[2 * i] ^ _MERGE[2 * i], state[2 * i + 1] ^ _MERGE[2 * i + 1])
    total = (total ^ total >> np.uint64(37)) * np.uint64(0x165667919E3779F9)
    return total ^ total >> np.uint64(32)


@kernel
def _check_sums(data: UInt8s, begin: int, file: Int64s, sums: UInt8s) -> bool:
    """Return True if the blocks from byte `begin` of a file on match their sums, which are copied into `sums`."""
    _, _, kept, of_sums = file
    at, size = begin // BLOCK * SUM, -(-len(data) // BLOCK) * SUM
    if size > len(sums):
        return False
    if kept != 0:
        _memcpy(sums.ctypes.data, kept + at, size)
    elif _pread(of_sums, sums.ctypes.data, size, at) != size:
        return False
    for block in range(size // SUM):
        own = data[block * BLOCK : min((block + 1) * BLOCK, len(data))]
        if len(own) <= _SHORT:
            return False
        sum_ = sum_of(own)
        for k in range(SUM):  # big-endian
            if sums[SUM * block + k] != sum_ >> np.uint64(56 - 8 * k) & np.uint64(255):
                return False
    return True


@kernel
def read_ranges(which: Int64s, ranges: Int64s, files: Int64s) -> UInt8s:
    """Read ranges, check their blocks, and return the bytes joined, uint8 (total,); empty if any range cannot be read.

    Args:
        which: File of each row of `ranges`, int64 (P,).
        ranges: First byte and number of bytes of K ranges of each file, int64 (P, 2 K).
        files: Descriptor of each file, its size, the address of its sums (0 if they must be read) and the
            descriptor of the sums, int64 (F, 4).
    """
    wide, total, most, nothing = ranges.shape[1] // 2, 0, 0, np.empty(0, np.uint8)
    for n in range(len(which) * wide):
        offset, size = ranges[n // wide, n % wide * 2], ranges[n // wide, n % wide * 2 + 1]
        ends = files[which[n // wide], 1]
        if offset < 0 or not 0 < size <= ends or offset > ends - size:
            return nothing
        total, most = total + size, max(most, size)
    out, blocks = np.empty(total, np.uint8), np.empty(max(most + 2 * BLOCK, _AT_ONCE), np.uint8)
    scratch = np.empty((len(blocks) // BLOCK + 1) * SUM, np.uint8)
    held, begin, end, at = -1, 0, 0, 0
    for n in range(len(which) * wide):
        file, offset, size = which[n // wide], ranges[n // wide, n % wide * 2], ranges[n // wide, n % wide * 2 + 1]
        if file != held or offset < begin or offset + size > end:
            ends = files[file, 1]
            begin, end = offset // BLOCK * BLOCK, min(-(-(offset + size) // BLOCK) * BLOCK, ends)
            # Adjacent ranges, such as the words of a document after its tokens, are read by the same call.
            for k in range(n + 1, len(which) * wide):
                first, stop = ranges[k // wide, k % wide * 2], ranges[k // wide, k % wide * 2]
                stop = min(-(-(first + ranges[k // wide, k % wide * 2 + 1]) // BLOCK) * BLOCK, ends)
                if which[k // wide] != file or not begin <= first // BLOCK * BLOCK <= end:
                    break
                if max(stop, end) - begin > len(blocks):
                    break
                end = max(end, stop)
            if _pread(files[file, 0], blocks.ctypes.data, end - begin, begin) != end - begin:
                return nothing
            if not _check_sums(blocks[: end - begin], begin, files[file], scratch):
                return nothing
            held = file
        out[at : at + size] = blocks[offset - begin : offset - begin + size]
        at += size
    return out
