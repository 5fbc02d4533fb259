"""The kind `array`: one array of numbers as NPY 1.0, in C order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.npy import NpyError, npy_bytes, npy_header, read_npy

from .member import Kind, Member


def array_member(array: npt.NDArray[Any]) -> Member:
    """An array of any shape (n, ...) as a member, with the shape, dtype and data offset that reading a part needs."""
    data = npy_bytes(array)
    return Member(
        kind=ARRAY.name,
        data=data,
        facts={"data_offset": npy_header(data).data_offset},
        words={"dtype": array.dtype.str},
        lists={"shape": np.array(array.shape, dtype=np.int64)},
    )


def array_problems(member: Member) -> Iterator[str]:
    """Compare the header with the columns."""
    try:
        header = npy_header(member.data)
    except NpyError as error:
        yield str(error)
        return
    if header.version != 1 or (header.fortran and len(header.shape) > 1):
        yield f"is no NPY 1.0 in C order, but {header.version}.0 in {'Fortran' if header.fortran else 'C'} order"
    found = (header.dtype.str, [*header.shape], header.data_offset)
    wanted = (member.words["dtype"], member.lists["shape"].tolist(), member.facts["data_offset"])
    if found != wanted:
        yield f"has (dtype, shape, data offset) {found}, but the manifest says {wanted}"


def array_decode_problems(member: Member) -> Iterator[str]:
    """Find numbers that are not finite."""
    try:
        array = read_npy(member.data)
    except NpyError:
        return  # array_problems reports it
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        yield "a number is not finite"


ARRAY = Kind(
    name="array",
    facts={"data_offset": int},
    words=("dtype",),
    lists=("shape",),
    check=array_problems,
    decode=array_decode_problems,
)
