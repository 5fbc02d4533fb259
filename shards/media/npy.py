"""Arrays of numbers as NPY files. Headers are matched with a pattern, not evaluated, and compared with the bytes.

NumPy's own reader evaluates the header, and allocates memory for the declared shape before looking at the data.
"""

import io
import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.errors import DataError

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
"""Bytes of the header's length field, by version."""
_HEADER = re.compile(
    rb"\{ *'descr' *: *'([<>|=]?[a-zA-Z]\d{1,2})' *, *'fortran_order' *: *(True|False) *, "
    rb"*'shape' *: *\(((?: *\d{1,18} *,)*(?: *\d{1,18})?) *\) *,? *\} *\n?"
)
_NUMBERS = "biufc"
_MAX_AXES = 16
_LONGEST_EMPTY = 1 << 20
"""Longest axis of an array without numbers."""


class NpyError(DataError):
    """The bytes are not an NPY file of numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NpyHeader:
    """Header of an NPY file. data_offset: First byte of its numbers."""

    version: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    data_offset: int

    @property
    def size_bytes(self) -> int:
        """Size of the numbers in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def encode_npy(array: npt.NDArray[Any]) -> bytes:
    """Return an array as NPY 1.0 in C order; equal arrays result in equal bytes."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def read_npy_header(npy: bytes | memoryview) -> NpyHeader:
    """Parse the header of a complete NPY file of numbers. Raises NpyError if it is not one, or its data has a different
    size.
    """
    start = bytes(npy[:12])
    if not start.startswith(_MAGIC) or len(start) < 12 or start[6] not in _LENGTH_BYTES:
        raise NpyError(f"begins with {start[:8]!r}, so it is not an NPY file")
    width = _LENGTH_BYTES[start[6]]
    begin = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
    found = _HEADER.fullmatch(npy[8 + width : begin]) if begin <= len(npy) else None
    if found is None:
        raise NpyError("has no NPY header for numbers ({'descr': ..., 'fortran_order': ..., 'shape': ...})")
    descr, fortran, axes = (part.decode() for part in found.groups())
    shape = tuple(int(length) for length in axes.split(",") if length.strip())
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise NpyError(f"has the dtype {descr!r}, which does not exist") from error
    legal = dtype.kind in _NUMBERS and dtype.itemsize <= (16 if dtype.kind == "c" else 8)
    if not legal or len(shape) > _MAX_AXES or max(shape, default=0) > max(len(npy), _LONGEST_EMPTY):
        raise NpyError(f"contains {dtype} {shape}; expected numbers of at most 64 bits with at most {_MAX_AXES} axes")
    header = NpyHeader(version=start[6], dtype=dtype, shape=shape, fortran=fortran == "True", data_offset=begin)
    if begin + header.size_bytes != len(npy):
        raise NpyError(
            f"is not an NPY file: it declares {dtype} {shape}, {header.size_bytes} bytes, but {len(npy) - begin} follow"
        )
    return header


def read_npy(npy: bytes | memoryview) -> npt.NDArray[Any]:
    """Return a copy of the array in the machine's byte order. Raises NpyError if it is not an NPY file of numbers."""
    header = read_npy_header(npy)
    flat = np.frombuffer(npy, header.dtype, offset=header.data_offset)
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    return array.astype(header.dtype.newbyteorder("="), order="K")
