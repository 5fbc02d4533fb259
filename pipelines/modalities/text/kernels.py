"""Kernels that build rows of texts, and rows without padding, in one pass each."""

from typing import Any

import numpy as np

from maskstream.pipelines.masks.text.words import PADDING, SPECIAL
from maskstream.shards.arrays import Int32s, Int64s, UInt8s
from maskstream.shards.jit import kernel

from .packing import COUNT, RANGES, SAMPLE


@kernel
def place_values(
    pieces: Int64s,
    at: int,
    first: Int64s,
    code: Int32s,
    widths: Int64s,
    offset: Int64s,
    size: Int64s,
    n_tokens: Int64s,
    data_offset: Int64s,
) -> bool:
    """Write the byte ranges of the values [first, first + count) of pieces to the columns `at` and `at + 1`.

    `widths` is the number of bytes of a value for each dtype code: 0 for dtypes that are not used for tokens and for a
    missing one, code -1. Returns False if a sample's numbers are inconsistent.
    """
    for piece in range(len(pieces)):
        sample, count = pieces[piece, SAMPLE], pieces[piece, COUNT]
        width, begin, n, most = widths[code[sample]], data_offset[sample], n_tokens[sample], size[sample]
        # Nothing overflows if all of these hold.
        if offset[sample] == 0 or width == 0 or not 0 <= n <= most or not 0 <= begin <= most:
            return False
        if first[piece] < 0 or not 0 < count <= n or first[piece] > n - count or begin + n * width != most:
            return False
        pieces[piece, at], pieces[piece, at + 1] = offset[sample] + begin + first[piece] * width, count * width
    return True


@kernel
def _read_u2(data: UInt8s, n: int) -> Any:
    return np.int64(data[2 * n]) | np.int64(data[2 * n + 1]) << 8


@kernel
def _read_u4(data: UInt8s, n: int) -> Any:
    return _read_u2(data, 2 * n) | _read_u2(data, 2 * n + 1) << 16


@kernel
def _copy(data: UInt8s, out: Int32s) -> tuple[Any, Any]:
    """Copy little-endian numbers of 1, 2 or 4 bytes; returns the largest, and whether each equals the previous one or
    its successor.
    """
    width, most, odd = len(data) // len(out), np.int64(0), np.int64(0)
    # A separate loop for each width, because only these are vectorised.
    if width == 1:
        last = np.int64(data[0])
        for n in range(len(out)):
            out[n] = value = np.int64(data[n])
            most, odd, last = max(most, value), odd | (value - last), value
    elif width == 2:
        last = _read_u2(data, 0)
        for n in range(len(out)):
            out[n] = value = _read_u2(data, n)
            most, odd, last = max(most, value), odd | (value - last), value
    else:
        last = _read_u4(data, 0)
        for n in range(len(out)):
            out[n] = value = _read_u4(data, n)
            most, odd, last = max(most, value), odd | (value - last), value
    return most, odd & ~1 == 0


@kernel
def write_rows(
    pieces: Int64s,
    sizes: Int64s,
    rows: Int64s,
    legal: Int64s,
    data: UInt8s,
    tokens: Int32s,
    documents: Int32s,
    words: Int32s,
    classes: UInt8s,
    cues: Int64s,
) -> bool:
    """Write pieces to rows: `rows[i]` receives the next `sizes[i]`. Returns False for invalid values.

    Args:
        pieces: Columns of the pieces.
        sizes: Number of pieces of each row.
        rows: Row numbers.
        legal: Token before and token after a document, or -1; padding token; vocabulary size; number of classes, and
            the class for none; components of words and classes, or -1, which numbers tokens as words.
        data: Bytes of the pieces, piece after piece, component by component.
        tokens: (B, L), output.
        documents: (B, L), output.
        words: (B, L), output.
        classes: (B, L), output, or (0, 0) for no classes.
        cues: (rows, L), output: words with `SPECIAL` and `PADDING`, or (0, 0) for none.
    """
    begin, end, pad, vocabulary, n_classes, no_class, with_words, with_classes = legal
    length, piece, at = tokens.shape[1], 0, 0
    for i in range(len(rows)):
        row, to, word = rows[i], 0, 0
        if with_classes > 0:
            classes[row] = no_class
        for number in range(sizes[i]):
            count = pieces[piece, COUNT]
            if begin >= 0:
                tokens[row, to], documents[row, to], words[row, to] = begin, number, -1
                to += 1
            for component in range((pieces.shape[1] - RANGES) // 2):
                size = pieces[piece, RANGES + 2 * component + 1]
                if component == 0:
                    most, _ = _copy(data[at : at + size], tokens[row, to : to + count])
                    if most >= vocabulary:
                        return False
                    for n in range(count):
                        words[row, to + n] = word + n
                elif component == with_words:
                    _, ascend = _copy(data[at : at + size], words[row, to : to + count])
                    if not ascend:
                        return False
                    words[row, to : to + count] += word - words[row, to]
                elif component == with_classes:
                    _copy(data[at : at + size], documents[row, to : to + count])  # not written yet
                    for n in range(to, to + count):
                        if not 0 <= documents[row, n] < n_classes and documents[row, n] != no_class:
                            return False
                        classes[row, n] = documents[row, n]
                at += size
            documents[row, to : to + count] = number
            to += count
            word = words[row, to - 1] + 1
            if end >= 0:
                tokens[row, to], documents[row, to], words[row, to] = end, number, -1
                to += 1
            piece += 1
        tokens[row, to:length], documents[row, to:length], words[row, to:length] = pad, -1, -1
        for place in range(cues.shape[1]):
            if words[row, place] >= 0:
                cues[i, place] = words[row, place]
            else:
                cues[i, place] = SPECIAL if place < to else PADDING
    return True


@kernel
def count_tokens(documents: Int32s, lengths: Int32s) -> tuple[int, int]:
    """Count the tokens and documents in rows, int32 (B, L) with -1 for padding; writes tokens per row to `lengths`."""
    total = found = 0
    for row in range(len(documents)):
        last, n = -1, 0
        for number in documents[row]:
            if number >= 0:
                found += n == 0 or number != last
                last = number
                n += 1
        lengths[row] = n
        total += n
    return total, found


@kernel
def unpad(tokens: Int32s, documents: Int32s, ids: Int32s, index: Int64s, positions: Int32s, edges: Int32s) -> int:
    """Write the tokens of rows (B, L) without padding, their indexes, positions within documents, and document
    boundaries; returns the length of the longest document.
    """
    at = found = position = longest = 0
    for row in range(len(documents)):
        last = -1
        for place in range(documents.shape[1]):
            number = documents[row, place]
            if number < 0:
                continue
            if number != last:
                edges[found] = at
                found += 1
                last, position = number, 0
            ids[at], index[at], positions[at] = tokens[row, place], row * documents.shape[1] + place, position
            at += 1
            position += 1
            longest = max(longest, position)
    edges[found] = at
    return longest
