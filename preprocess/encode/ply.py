"""The headers of PLY files, and the numbers of text PLY files (G. Turk, The PLY Polygon File Format)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float64s, Int64s

from .numbers import find_unfit, make_unfit_error

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4"},
    **{"double": "f8", "float64": "f8"},
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
PLY_HEADER_BYTES = 1 << 16
_MOST_PROPERTIES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class PlyProperty:
    """A property of an element: its name and the type of its numbers; for a list, also the type of its length, else
    None.
    """

    name: str
    dtype: str
    length: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlyElement:
    """An element of a PLY file, such as vertex or face, with `count` rows."""

    name: str
    count: int
    properties: tuple[PlyProperty, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlyHeader:
    """The header of a PLY file.

    Attributes:
        order: Byte order as in numpy; "" for text.
        elements: Elements in order.
        begin: Size of the header in bytes.
    """

    order: str
    elements: tuple[PlyElement, ...]
    begin: int

    def count(self, name: str) -> int:
        """Return the number of rows of an element; 0 if there is no such element."""
        return sum(element.count for element in self.elements if element.name == name)


def read_ply_header(data: bytes) -> PlyHeader:
    """Read the header of a PLY file.

    Args:
        data: Bytes of the file, or its beginning.

    Raises:
        RejectError: The header is damaged.
    """
    head = re.match(rb"(?s)ply\r?\n.*?^end_header[ \t]*\r?\n", data[:PLY_HEADER_BYTES], re.MULTILINE)
    if head is None:
        raise RejectError("open", f"is not a PLY file: it begins with {data[:16]!r}, or its header has no end")
    words = [line.split() for line in head[0].decode("ascii", "replace").splitlines()]
    starts = [n for n, one in enumerate(words) if one[:1] == ["element"]]
    try:
        order = _ORDERS[next(one[1] for one in words if one[:1] == ["format"])]
        elements = tuple(
            _read_element(words[start:stop], order) for start, stop in zip(starts, [*starts[1:], None], strict=True)
        )
        if not elements:
            raise ValueError("no element")
    except (ValueError, KeyError, IndexError, StopIteration) as error:
        raise RejectError("open", f"has a malformed PLY header ({type(error).__name__}: {error})") from error
    return PlyHeader(order=order, elements=elements, begin=head.end())


def _read_element(lines: Sequence[Sequence[str]], order: str) -> PlyElement:
    """Parse an element from the lines of a header, starting at its own line."""
    _, name, count = lines[0]
    properties = []
    for _, *words in (line for line in lines if line[:1] == ["property"]):
        *lists, dtype, called = words
        if lists and (len(lists) != 2 or lists[0] != "list"):
            raise ValueError(" ".join(words))
        length = _TYPES[lists[1]] if lists else None
        properties.append(PlyProperty(name=called, dtype=(order or "<") + _TYPES[dtype], length=length))
    if int(count) < 0 or not bool(int(count)) <= len(properties) <= _MOST_PROPERTIES:
        raise ValueError(f"{count} rows of {len(properties)} properties")
    return PlyElement(name=name, count=int(count), properties=tuple(properties))


def check_ply_text(data: bytes, header: PlyHeader) -> dict[str, Int64s]:
    """Check the numbers of a text PLY file.

    Args:
        data: Bytes of the file.
        header: Its header.

    Returns:
        The lengths of each list, int64 (rows,), by element and property, such as "face.vertex_indices".

    Raises:
        RejectError: A number does not fit its type, or there are more or fewer than the header declares.
    """
    try:
        numbers = np.fromstring(data[header.begin :].decode("latin-1"), np.float64, sep=" ")
    except ValueError as error:
        raise RejectError("decode", f"holds words that are not numbers ({error})") from error
    at, line, lengths = 0, data.count(b"\n", 0, header.begin) + 1, dict[str, Int64s]()
    for element in header.elements:
        starts, own = _walk(numbers, at, element)
        for n, one in enumerate(element.properties):
            rows, name = np.arange(element.count), f"{one.name} of the {element.name}"
            if one.length is None:
                _check(numbers[starts[:, n]], rows + line, name, one.dtype)
                continue
            _check(numbers[starts[:, n]], rows + line, f"length of {name}", one.length)
            each = numbers[starts[:, n]].astype(np.int64)
            lengths[f"{element.name}.{one.name}"] = each
            # The items of row r are the numbers behind its length.
            within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
            items = np.repeat(starts[:, n] + 1, each) + within
            _check(numbers[items], np.repeat(rows + line, each), name, one.dtype)
        at, line = own, line + element.count
    if at != len(numbers):
        raise RejectError("decode", f"has {len(numbers)} numbers, but its header declares {at}")
    return lengths


def _walk(numbers: Float64s, at: int, element: PlyElement) -> tuple[Int64s, int]:
    """Return the start of each property of each row, int64 (rows, properties), beginning at number `at`, and the end of
    the element.
    """
    properties, count = element.properties, element.count
    left = len(numbers) - at
    if count * len(properties) > left:
        raise RejectError("decode", f"is truncated: {left} numbers are left for {count} rows of {element.name}")
    if all(one.length is None for one in properties):
        size = count * len(properties)
        return np.arange(at, at + size).reshape(count, len(properties)), at + size
    starts = np.empty((count, len(properties)), np.int64)
    is_list = [one.length is not None for one in properties]
    for row in range(count):
        for n, listed in enumerate(is_list):
            if at >= len(numbers):
                raise RejectError("decode", f"is truncated: it holds {row} of {count} rows of {element.name}")
            starts[row, n] = at
            length = numbers[at] if listed else 0
            if not 0 <= length <= len(numbers):
                raise RejectError("decode", f"row {row} of {element.name} declares a list of {length:g} numbers")
            at += 1 + int(length)
    if at > len(numbers):
        raise RejectError("decode", f"is truncated: its last {element.name} has too few numbers")
    return starts, at


def _check(values: Float64s, lines: Int64s, name: str, dtype: str) -> None:
    """Raise RejectError for the first number that is not finite or does not fit its type."""
    unfit = find_unfit(values, np.dtype(dtype))
    if len(unfit):
        raise make_unfit_error(int(lines[unfit[0]]), name, f"{values[unfit[0]]:.15g}", np.dtype(dtype))
