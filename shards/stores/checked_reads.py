"""Reads ranges of local files and checks their blocks in compiled code, without a call of Python for each.

`pread` is the C library's. The sums are xxh3_64, as its specification defines it for more than 240 bytes
(https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md); vectors are LLVM's of no machine in particular.
"""

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from maskstream.shards.jit import filled, instructions, kernel, load, picked, store, vector

Int64s = npt.NDArray[np.int64]
UInt8s = npt.NDArray[np.uint8]

BLOCK, SUM = 4096, 8
"""As block_sums.py has them; a kernel knows only numbers of its own file."""
_AT_ONCE = 1 << 15
"""So many bytes may be read by one call for several ranges that lie one behind the other."""
_SHORT = 240
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _words(first: int, count: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(_SECRET, "<u8", count, first).astype(np.uint64)


_KEYS, _LAST, _MERGE = _words(0, 24), _words(121, 8), _words(11, 8)
_P32, _P64, _Q64, _R64 = 0x9E3779B1, 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_BEGIN = np.array([0xC2B2AE3D, _P64, _Q64, _R64, 0x85EBCA77C2B2AE63, 0x85EBCA77, 0x27D4EB2F165667C5, _P32], np.uint64)
_EIGHT = vector(64, 8)


@instructions(types.intp)
def _pread(b: ir.IRBuilder, descriptor: ir.Value, to: ir.Value, n: ir.Value, offset: ir.Value) -> ir.Value:
    """The C library's `pread` to an address: the bytes read, or -1."""
    word, byte = ir.IntType(64), ir.IntType(8).as_pointer()
    name = "pread"
    known = b.module.globals.get(name)
    call = known or ir.Function(b.module, ir.FunctionType(word, [ir.IntType(32), byte, word, word]), name)
    return b.call(call, [b.trunc(descriptor, ir.IntType(32)), b.inttoptr(to, byte), n, offset])


@instructions(types.uint64)
def _sum_at(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """The big-endian number of 8 bytes at an address."""
    return b.bswap(load(b, address, ir.IntType(64)))


@instructions(types.void)
def _mix(b: ir.IRBuilder, sums: ir.Value, data: ir.Value, keys: ir.Value) -> None:
    """Adds the 64 bytes at `data` to the eight sums; all are addresses."""
    words = load(b, data, _EIGHT)
    keyed = b.xor(words, load(b, keys, _EIGHT))
    product = b.mul(b.and_(keyed, filled(_EIGHT, 0xFFFF_FFFF)), b.lshr(keyed, filled(_EIGHT, 32)))
    crossed = picked(b, words, words, [n ^ 1 for n in range(8)])
    store(b, b.add(b.add(load(b, sums, _EIGHT), crossed), product), sums)


@kernel
def _folded(one: np.uint64, other: np.uint64) -> np.uint64:
    """The upper and the lower half of the product of two numbers of 64 bits, by XOR."""
    low, half = np.uint64(0xFFFF_FFFF), np.uint64(32)
    across = (one >> half) * (other & low)
    middle = ((one & low) * (other & low) >> half) + (across & low) + (one & low) * (other >> half)
    return ((across >> half) + (middle >> half) + (one >> half) * (other >> half)) ^ one * other


@kernel
def sum_of(address: int, n: int) -> np.uint64:
    """The xxh3_64 of the `n` bytes from an address on, of which there are more than 240."""
    sums = _BEGIN.copy()
    at, keys = sums.ctypes.data, _KEYS.ctypes.data
    whole = (n - 1) // 1024
    for block in range(whole):
        for stripe in range(16):
            _mix(at, address + 1024 * block + 64 * stripe, keys + 8 * stripe)
        for i in range(8):
            sums[i] = (sums[i] ^ sums[i] >> np.uint64(47) ^ _KEYS[16 + i]) * np.uint64(_P32)
    for stripe in range((n - 1 - 1024 * whole) // 64):
        _mix(at, address + 1024 * whole + 64 * stripe, keys + 8 * stripe)
    _mix(at, address + n - 64, _LAST.ctypes.data)
    total = np.uint64(n) * np.uint64(_P64)
    for i in range(4):
        total += _folded(sums[2 * i] ^ _MERGE[2 * i], sums[2 * i + 1] ^ _MERGE[2 * i + 1])
    total = (total ^ total >> np.uint64(37)) * np.uint64(0x165667919E3779F9)
    return total ^ total >> np.uint64(32)


@kernel
def _checked(data: int, begin: int, n: int, file: Int64s, scratch: UInt8s) -> bool:
    """Whether the blocks from byte `begin` of a file on, `n` bytes at `data`, have their sums."""
    _, _, sums, of_sums = file
    at, count = begin // BLOCK * SUM, -(-n // BLOCK)
    if sums == 0:
        sums, at, first = scratch.ctypes.data, 0, at
        if count * SUM > len(scratch) or _pread(of_sums, sums, count * SUM, first) != count * SUM:
            return False
    for block in range(count):
        size = min(BLOCK, n - BLOCK * block)
        if size <= _SHORT or sum_of(data + BLOCK * block, size) != _sum_at(sums + at + SUM * block):
            return False
    return True


@kernel
def read_ranges(which: Int64s, ranges: Int64s, files: Int64s) -> UInt8s:
    """The bytes of ranges one behind the other, once their blocks have their sums; none where anything is not in order.

    which: int64 (P,), the file of each row of ranges. ranges: int64 (P, 2 K), the first byte and the number of bytes of
    K ranges of it. files: int64 (F, 4), the descriptor of each, its size, the address of its sums, 0 where they have to
    be read, and their descriptor.
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
            # What lies behind it, as the words of a document behind its tokens, is read by the same call.
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
            if not _checked(blocks.ctypes.data, begin, end - begin, files[file], scratch):
                return nothing
            held = file
        out[at : at + size] = blocks[offset - begin : offset - begin + size]
        at += size
    return out
