"""The draws of many texts at once, compiled: numpy's Philox and the end of its permutation, number by number.

`Tokens` draws a permutation of a text's tokens and hides the last ones. numpy shuffles from the end (Fisher and Yates),
so what is hidden is known after as many steps as tokens are hidden. A place below a bound is drawn by the bits that can
hold it, again and again until it fits. Philox4x64-10: Salmon et al. 2011.
"""

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from maskstream.shards.jit import instructions, kernel

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_PADDING = -2  # as words.py has it; a kernel knows only numbers of its own file
_FIRST, _SECOND = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_STEP, _OTHER = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_LOW, _HALF = 0xFFFF_FFFF, 32


@instructions(types.uint64)
def _high(b: ir.IRBuilder, one: ir.Value, other: ir.Value) -> ir.Value:
    """The upper half of the product of two numbers of 64 bits without sign."""
    wide = ir.IntType(128)
    product = b.mul(b.zext(one, wide), b.zext(other, wide))
    return b.trunc(b.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))


@kernel
def _fill_block(counter: np.uint64, key: UInt64s, block: UInt64s) -> None:
    """Writes the four numbers of Philox for a counter below 2^64 and a key, uint64 (2,)."""
    zero = np.uint64(0)
    a, b, c, d, one, other = np.uint64(counter), zero, zero, zero, key[0], key[1]
    for _ in range(10):
        up, down = _high(np.uint64(_FIRST), a), np.uint64(_FIRST) * a
        left, right = _high(np.uint64(_SECOND), c), np.uint64(_SECOND) * c
        a, b, c, d = left ^ b ^ one, right, up ^ d ^ other, down
        one, other = one + np.uint64(_STEP), other + np.uint64(_OTHER)
    block[0], block[1], block[2], block[3] = a, b, c, d


@kernel
def text_lengths(words: Int64s) -> Int64s:
    """The tokens of each text that are not padding, int64 (B,), by the cue `words` (B, N)."""
    lengths = np.zeros(len(words), np.int64)
    for row in range(len(words)):
        for word in words[row]:
            lengths[row] += word != _PADDING
    return lengths


@kernel
def hide_tokens(keys: UInt64s, words: Int64s, counts: Int64s) -> npt.NDArray[np.bool_]:
    """Hides `counts` (B,) tokens of each text, at most all that are words: bool (B, N).

    keys: uint64 (B, 2), of the Philox of each text. words: the cue, (B, N).
    """
    hidden, order, block = np.zeros(words.shape, np.bool_), np.empty(words.shape[1], np.int64), np.empty(4, np.uint64)
    low, half = np.uint64(_LOW), np.uint64(_HALF)
    for row in range(len(words)):
        n = 0
        for place in range(words.shape[1]):
            if words[row, place] >= 0:
                order[n] = place
                n += 1
        visible = n - min(counts[row], n)
        counter, at, spare, is_spare = np.uint64(0), 4, np.uint64(0), False
        for i in range(n - 1, max(visible, 1) - 1, -1):
            mask = np.uint64(i)  # the bits of the least number of ones that covers i
            for shift in (1, 2, 4, 8, 16):
                mask |= mask >> np.uint64(shift)
            while True:
                if is_spare:
                    drawn = spare
                else:
                    if at == 4:
                        counter += np.uint64(1)
                        _fill_block(counter, keys[row], block)
                        at = 0
                    drawn, spare = block[at] & low, block[at] >> half
                    at += 1
                is_spare = not is_spare
                j = np.int64(drawn & mask)
                if j <= i:
                    break
            hidden[row, order[j]] = True
            order[i], order[j] = order[j], order[i]
        if visible == 0 and n > 0:
            hidden[row, order[0]] = True
    return hidden


@kernel
def hide_each(keys: UInt64s, words: Int64s, chance: float) -> npt.NDArray[np.bool_]:
    """Hides each token of each text that is a word with a chance of its own: bool (B, N); the rest as above."""
    hidden, block = np.zeros(words.shape, np.bool_), np.empty(4, np.uint64)
    for row in range(len(words)):
        for place in range(words.shape[1]):
            if place % 4 == 0:
                _fill_block(np.uint64(place // 4 + 1), keys[row], block)
            uniform = np.float64(block[place % 4] >> np.uint64(11)) * 2.0**-53
            hidden[row, place] = uniform < chance and words[row, place] >= 0
    return hidden
