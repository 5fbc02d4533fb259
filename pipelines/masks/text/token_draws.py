"""Compiled draws for many texts at once that reproduce numpy's Philox, permutations and bounded integers exactly.

`Tokens` draws a permutation of a text's tokens and hides the last ones. numpy shuffles from the end (Fisher-Yates), so
the hidden tokens are known after as many steps as there are hidden tokens. An index below a bound is drawn with the
minimum number of bits and rejected until it fits. Philox4x64-10: Salmon et al. 2011. Integers below a bound: Lemire
2019.

A generator is a row of `TextDraws.streams`: Philox's key, its counter, the position in its last block, a flag for a
leftover 32-bit half and that half, and the block.
"""

import numpy as np

from maskstream.shards.arrays import Bools, Float64s, Int64s, UInt64s
from maskstream.shards.jit import kernel

_PADDING = -2  # as in words.py; kernels can only use constants of their module
_COUNTER, _AT, _HAS_HALF, _LEFT, _BLOCK = 2, 3, 4, 5, 6
_FIRST, _SECOND = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_STEP, _OTHER = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_MIX, _MIX_AGAIN = 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB
_LOW, _HALF = 0xFFFF_FFFF, 32
_U = np.uint64


@kernel
def _multiply_high(one: np.uint64, other: np.uint64) -> np.uint64:
    """Return the upper 64 bits of a 128-bit product, from four products of 32-bit halves."""
    across = (one >> _U(_HALF)) * (other & _U(_LOW))
    below = (one & _U(_LOW)) * (other & _U(_LOW)) >> _U(_HALF)
    middle = below + (across & _U(_LOW)) + (one & _U(_LOW)) * (other >> _U(_HALF))
    return (across >> _U(_HALF)) + (middle >> _U(_HALF)) + (one >> _U(_HALF)) * (other >> _U(_HALF))


@kernel
def _next(stream: UInt64s) -> np.uint64:
    """Return the next 64 bits of a generator."""
    if stream[_AT] == _U(4):
        stream[_COUNTER] += _U(1)
        a, b, c, d, one, other = stream[_COUNTER], _U(0), _U(0), _U(0), stream[0], stream[1]
        for _ in range(10):
            up, down = _multiply_high(_U(_FIRST), a), _U(_FIRST) * a
            left, right = _multiply_high(_U(_SECOND), c), _U(_SECOND) * c
            a, b, c, d = left ^ b ^ one, right, up ^ d ^ other, down
            one, other = one + _U(_STEP), other + _U(_OTHER)
        stream[_BLOCK], stream[_BLOCK + 1], stream[_BLOCK + 2], stream[_BLOCK + 3] = a, b, c, d
        stream[_AT] = _U(0)
    drawn: np.uint64 = stream[_U(_BLOCK) + stream[_AT]]
    stream[_AT] += _U(1)
    return drawn


@kernel
def _draw_next_half(stream: UInt64s) -> np.uint64:
    """Return the next 32 bits: the lower half of a number, then its upper half."""
    if stream[_HAS_HALF]:
        stream[_HAS_HALF] = _U(0)
        left: np.uint64 = stream[_LEFT]
        return left
    drawn = _next(stream)
    stream[_HAS_HALF], stream[_LEFT] = _U(1), drawn >> _U(_HALF)
    return drawn & _U(_LOW)


@kernel
def _draw_next_uniform(stream: UInt64s) -> float:
    """Return the next number in [0, 1)."""
    return float(_next(stream) >> _U(11)) * 2.0**-53


@kernel
def _draw_next_below(stream: UInt64s, bound: int) -> np.uint64:
    """Return the next integer below a bound of 1 to 2^32 - 1."""
    if bound == 1:
        return _U(0)
    product = _draw_next_half(stream) * _U(bound)
    if product & _U(_LOW) < _U(bound):
        least = (_U(_LOW) - _U(bound - 1)) % _U(bound)
        while product & _U(_LOW) < least:
            product = _draw_next_half(stream) * _U(bound)
    return product >> _U(_HALF)


@kernel
def draw_uniforms(streams: UInt64s) -> Float64s:
    """Return the next number in [0, 1) of each generator, float64 (B,)."""
    drawn = np.empty(len(streams), np.float64)
    for row in range(len(streams)):
        drawn[row] = _draw_next_uniform(streams[row])
    return drawn


@kernel
def count_text_tokens(words: Int64s) -> Int64s:
    """Count the tokens of each text that are not padding, int64 (B,), from the mask input `words` (B, N)."""
    lengths = np.zeros(len(words), np.int64)
    for row in range(len(words)):
        for word in words[row]:
            lengths[row] += word != _PADDING
    return lengths


@kernel
def hide_tokens(streams: UInt64s, words: Int64s, counts: Int64s, goes_on: bool) -> Bools:
    """Hide `counts` (B,) tokens of each text, at most all that are words: bool (B, N).

    Args:
        streams: uint64 (B, 10), generator of each text.
        words: int64 (B, N), the mask input.
        counts: int64 (B,), number of tokens to hide.
        goes_on: Draw the whole permutation even after the last hidden token, so that later draws match numpy's.
    """
    hidden, order = np.zeros(words.shape, np.bool_), np.empty(words.shape[1], np.int64)
    for row in range(len(words)):
        n, stream = 0, streams[row]
        for place in range(words.shape[1]):
            if words[row, place] >= 0:
                order[n] = place
                n += 1
        visible = n - min(counts[row], n)
        for i in range(n - 1, (1 if goes_on else max(visible, 1)) - 1, -1):
            mask = _U(i)  # the smallest all-ones mask that covers i
            for shift in (1, 2, 4, 8, 16):
                mask |= mask >> _U(shift)
            j = np.int64(_draw_next_half(stream) & mask)
            while j > i:
                j = np.int64(_draw_next_half(stream) & mask)
            if i >= visible:
                hidden[row, order[j]] = True
                order[i], order[j] = order[j], order[i]
        if visible == 0 and n > 0:
            hidden[row, order[0]] = True
    return hidden


@kernel
def hide_each(streams: UInt64s, words: Int64s, chances: Float64s) -> Bools:
    """Hide each word token independently with its text's probability, `chances` (B,): bool (B, N); see
    `hide_tokens`.
    """
    hidden = np.zeros(words.shape, np.bool_)
    for row in range(len(words)):
        stream = streams[row]
        for place in range(words.shape[1]):
            hidden[row, place] = (_draw_next_uniform(stream) < chances[row]) & (words[row, place] >= 0)
    return hidden


@kernel
def hide_words(streams: UInt64s, words: Int64s, counts: Int64s, chance: float) -> Bools:
    """Hide whole words, up to `counts` (B,) tokens per text, or each with probability `chance` if that is not negative.

    Returns bool (B, N). See `hide_tokens` for the other arguments.
    """
    texts, n = words.shape
    hidden, number = np.zeros(words.shape, np.bool_), np.empty(n, np.int64)
    lengths, candidates, taken = np.empty(n, np.int64), np.arange(n), np.empty((1, n), np.bool_)
    for row in range(texts):
        found, last, stream = 0, np.int64(-1), streams[row]
        for place in range(n):
            word = words[row, place]
            if word >= 0:
                if word != last:
                    lengths[found] = 0
                    found += 1
                    last = word
                lengths[found - 1] += 1
                number[place] = found - 1
        taken[:] = False
        if chance >= 0.0:
            for word in range(found):
                taken[0, word] = _draw_next_uniform(stream) < chance
        else:
            take_words(lengths, candidates[:found], counts[row], _next(stream), taken)
        for place in range(n):
            hidden[row, place] = words[row, place] >= 0 and taken[0, number[place]]
    return hidden


@kernel
def take_words(lengths: Int64s, candidates: Int64s, count: int, seed: np.uint64, taken: Bools) -> None:
    """Fill each row of `taken` (rows, W), initially False, trying the candidate words in random order.

    A word is accepted unless the row would then exceed `count` tokens. Orders are drawn by a Fisher-Yates shuffle, only
    as far as needed, from SplitMix64 (Steele et al. 2014) starting at `seed`.
    """
    rows, _ = taken.shape
    n = len(candidates)
    order = candidates.copy()
    state = seed
    for row in range(rows):
        room = count
        for i in range(n):
            if room == 0:
                break
            state += _U(_STEP)
            bits = (state ^ (state >> _U(30))) * _U(_MIX)
            bits = (bits ^ (bits >> _U(27))) * _U(_MIX_AGAIN)
            bits ^= bits >> _U(31)
            j = i + np.int64(((bits >> _U(32)) * _U(n - i)) >> _U(32))
            word = order[j]
            order[j] = order[i]
            order[i] = word
            if lengths[word] <= room:
                taken[row, word] = True
                room -= lengths[word]


@kernel
def replace_hidden(
    streams: UInt64s, hidden: Bools, tokens: Int64s, keep: float, changed: float, mask_id: int, vocabulary: int
) -> None:
    """Replace hidden `tokens` (B, N) in place with BERT's rule.

    A token is unchanged if its uniform number is below `keep`, becomes random below `vocabulary` if it is below
    `changed`, and becomes `mask_id` otherwise.
    """
    random = np.empty(hidden.shape[1], np.int64)
    for row in range(len(hidden)):
        n, stream = 0, streams[row]
        for place in range(hidden.shape[1]):
            if hidden[row, place]:
                chance = _draw_next_uniform(stream)
                if chance >= keep:
                    tokens[row, place] = mask_id
                    if chance < changed:
                        random[n] = place
                        n += 1
        for place in random[:n]:
            tokens[row, place] = _draw_next_below(stream, vocabulary)
