"""NPY headers are compared with the bytes there are, and what is no array of numbers is refused."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest

from maskstream.shards.media.npy import NpyError, encode_npy, read_npy, read_npy_header


def forged(header: str, data: bytes = b"", version: int = 1) -> bytes:
    width = 2 if version == 1 else 4
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(width, "little") + header.encode() + data


def of(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "|b1", "|u1", "<i8", ">u2", "<f2", "<c8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_arrays_that_numpy_writes_are_read(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for stored in (array, np.asfortranarray(array)):
        for version in ((1, 0), (2, 0), (3, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, stored, version=version)
            found = read_npy(file.getvalue())
            np.testing.assert_array_equal(found, array)
            assert found.dtype == array.dtype.newbyteorder("=")
            assert found.dtype.isnative


def test_an_array_is_written_as_numpy_does_and_found_at_its_offset() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    data = encode_npy(array)
    header = read_npy_header(data)
    assert (header.shape, header.size_bytes, header.data_offset) == ((2, 3), 24, len(data) - 24)


class Thief:
    def __reduce__(self) -> tuple[Any, ...]:
        raise AssertionError("was unpickled")


HOSTILE = {
    "nothing": b"",
    "a zip": b"PK\3\4" + bytes(40),
    "a cut header": forged(of("'<f4'", "(1,)"))[:20],
    "version 9": forged(of("'<f4'", "(1,)"), bytes(4), version=9),
    "a shape of terabytes": forged(of("'<f4'", "(1000000000000,)"), bytes(16)),
    "a shape that overflows": forged(of("'<f4'", "(999999999999999999, 999999999999999999)"), bytes(16)),
    "a negative shape": forged(of("'<f4'", "(-1,)"), bytes(4)),
    "data that end early": forged(of("'<f4'", "(4,)"), bytes(15)),
    "stray data": forged(of("'<f4'", "(4,)"), bytes(17)),
    "objects": forged(of("'|O'", "(1,)"), pickle.dumps([1])),
    "text": forged(of("'<U4'", "(1,)"), bytes(16)),
    "records": forged(of("[('a', '<f4')]", "(1,)"), bytes(4)),
    "no such dtype": forged(of("'<f9'", "(1,)"), bytes(9)),
    "an expression": forged("{'descr': '<f4', 'fortran_order': False, 'shape': (9**9**9,), }\n", bytes(4)),
    "brackets": forged("(" * 60000),
    "seventeen axes": forged(of("'<f4'", "(" + "1," * 17 + ")"), bytes(4)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_array_of_numbers_is_refused(data: bytes) -> None:
    with pytest.raises(NpyError):
        read_npy(data)
