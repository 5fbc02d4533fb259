"""Read TFRecord files and the tf.train.Example messages in them, as TensorFlow writes them, without TensorFlow.

A record is its length (uint64), a checksum of the length, its bytes, and a checksum of the bytes; both are masked
CRC-32C, and both are verified. An Example maps names to lists of bytes, floats or integers; only bytes are read.

tensorflow.org/tutorials/load_data/tfrecord, section TFRecords format details; tensorflow/core/example/example.proto.
"""

import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from maskstream.preprocess.encode.limits import check_source_file
from maskstream.preprocess.source import RejectError

_HEAD = struct.Struct("<QI")
_SUM = struct.Struct("<I")
_MAX_RECORD_BYTES = 1 << 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def record_spans(path: Path) -> list[tuple[int, int]]:
    """Return the span [begin, stop) in bytes of the data of each record, reading only the lengths.

    Args:
        path: TFRecord file.

    Raises:
        RejectError: A length is damaged, or the file ends within a record.
        OSError: The file cannot be read.
    """
    check_source_file(path)
    size = path.stat().st_size
    spans: list[tuple[int, int]] = []
    at = 0
    with path.open("rb", buffering=0) as file:
        while at < size:
            file.seek(at)
            head = file.read(_HEAD.size)
            length, wanted = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, None)
            if wanted is None or mask_crc32c(head[:8]) != wanted or length > _MAX_RECORD_BYTES:
                raise RejectError(
                    "open", f"is not a TFRecord file, or damaged: at byte {at}, after {len(spans)} records"
                )
            begin = at + _HEAD.size
            at = begin + length + _SUM.size
            if at > size:
                raise RejectError("open", f"is cut off: record {len(spans)} ends at byte {at}, but the file at {size}")
            spans.append((begin, begin + length))
    return spans


def read_example(path: Path, span: tuple[int, int]) -> dict[str, bytes]:
    """Read the Example in a span of a file.

    Args:
        path: TFRecord file.
        span: First byte and end of the record.

    Returns:
        The bytes of each feature that has one bytes value, by name.

    Raises:
        RejectError: The record is damaged.
        OSError: The file cannot be read.
    """
    check_source_file(path)
    with path.open("rb", buffering=0) as file:
        file.seek(span[0])
        data = file.read(span[1] - span[0] + _SUM.size)
    if len(data) != span[1] - span[0] + _SUM.size:
        raise RejectError("open", f"is cut off: the record at byte {span[0]} ends at {span[0] + len(data)}")
    record = memoryview(data)[: -_SUM.size]
    if mask_crc32c(record) != _SUM.unpack(data[-_SUM.size :])[0]:
        raise RejectError("open", f"is damaged: the record at byte {span[0]} does not match its checksum")
    try:
        return dict(_features(record))
    except (ValueError, IndexError, KeyError) as error:
        raise RejectError("decode", f"the record at byte {span[0]} is not a tf.train.Example ({error})") from error


def _features(example: memoryview) -> Iterator[tuple[str, bytes]]:
    for features in _read_field(example, 1):
        for entry in _read_field(features, 1):
            (name,) = _read_field(entry, 1)
            lists = [one for feature in _read_field(entry, 2) for one in _read_field(feature, 1)]
            values = [value for one in lists for value in _read_field(one, 1)]
            if len(values) == 1:
                yield bytes(name).decode(), bytes(values[0])


def _read_field(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the values of a field of bytes, or of messages, in a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _read_varint(message, at)
            continue
        length, at = _read_varint(message, at) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[kind], at)
        if at + length > len(message):
            raise ValueError(f"the field at byte {at} has {length} bytes, but the message has only {len(message)}")
        if kind == _BYTES and number == wanted:
            yield message[at : at + length]
        at += length


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"the number at byte {at} has more than 64 bits")


def mask_crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C of bytes, masked as in TFRecord by a rotation and an addition."""
    crc = int(_compile_kernel()(np.frombuffer(data, np.uint8), _build_crc_table()))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _build_crc_table() -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Return the CRC-32C of each byte, for the reflected polynomial 0x82F63B78."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


@cache
def _compile_kernel() -> Callable[..., np.uint32]:
    import numba

    def compute_crc32c(data, table):  # type: ignore[no-untyped-def]
        crc = np.uint32(0xFFFFFFFF)
        for byte in data:
            crc = table[(crc ^ byte) & np.uint32(255)] ^ (crc >> np.uint32(8))
        return crc ^ np.uint32(0xFFFFFFFF)

    compiled: Callable[..., np.uint32] = numba.njit(nogil=True)(compute_crc32c)
    return compiled
