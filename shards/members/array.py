"""The kind `array`: one array of numbers as NPY 1.0, in C order."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .member import Kind, Member

_MAGIC = b"\x93NUMPY\x01\x00"


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """An array as NPY 1.0; the same array gives the same bytes."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def data_offset(npy: bytes) -> int:
    """The offset of an NPY file's numbers in bytes. Raises ValueError if it is no NPY 1.0."""
    if not npy.startswith(_MAGIC) or len(npy) < len(_MAGIC) + 2:
        raise ValueError(f"begins with {npy[:8]!r}, so it is no NPY 1.0")
    return len(_MAGIC) + 2 + int(struct.unpack_from("<H", npy, len(_MAGIC))[0])


def array_member(array: npt.NDArray[Any]) -> Member:
    """An array as a member, with the shape, dtype and data offset that reading a part of it needs."""
    data = npy_bytes(array)
    return Member(
        kind=ARRAY.name,
        data=data,
        facts={"data_offset": data_offset(data)},
        words={"dtype": array.dtype.str},
        lists={"shape": np.array(array.shape, dtype=np.int64)},
    )


def read_array(data: bytes) -> npt.NDArray[Any] | str:
    """The array, or the reason why it cannot be read."""
    try:
        array: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        return array
    except (ValueError, EOFError, OSError, MemoryError) as error:
        return f"is no NPY file of numbers ({error})"


def array_problems(member: Member) -> Iterator[str]:
    """Compare the header with the columns."""
    array = read_array(member.data)
    if isinstance(array, str):
        yield array
        return
    try:
        found = (array.dtype.str, [*array.shape], data_offset(member.data))
    except ValueError as error:
        yield str(error)
        return
    wanted = (member.words["dtype"], member.lists["shape"].tolist(), member.facts["data_offset"])
    if found != wanted:
        yield f"has (dtype, shape, data offset) {found}, but the manifest says {wanted}"


def array_decode_problems(member: Member) -> Iterator[str]:
    """Find numbers that are not finite."""
    array = read_array(member.data)
    if not isinstance(array, str) and array.dtype.kind in "fc" and not np.isfinite(array).all():
        yield "a number is not finite"


ARRAY = Kind(
    name="array",
    facts={"data_offset": int},
    words=("dtype",),
    lists=("shape",),
    check=array_problems,
    decode=array_decode_problems,
)
