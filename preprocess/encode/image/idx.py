"""Reads one image of an IDX file, the format of MNIST and its successors.

The file has a header of four bytes (0, 0, the type of values, the number of axes), the sizes of the axes as big-endian
32-bit numbers, then the values. Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database, "File formats".
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from maskstream.preprocess.encode.limits import check_image_size
from maskstream.preprocess.encode.source_file import check_source_file
from maskstream.preprocess.source import RejectError

from .picture import DecodedPicture, UInt8s

_UINT8 = 0x08


def read_idx_image(path: Path, number: int) -> DecodedPicture:
    """Image `number`, from 0, of an uncompressed IDX file of grey images, uint8 (images, height, width).

    Raises RejectError for a file of another kind, or without that image.
    """
    check_source_file(path)
    try:
        with path.open("rb") as file:
            header = file.read(16)
            if len(header) < 16 or header[:4] != bytes((0, 0, _UINT8, 3)):
                raise RejectError("open", "is no IDX file of grey images: uint8, three axes")
            count, height, width = struct.unpack(">III", header[4:])
            check_image_size(width, height)
            if not 0 <= number < count:
                raise RejectError("open", f"has {count} images and no image {number}")
            file.seek(16 + number * height * width)
            data = file.read(height * width)
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    if len(data) < height * width:
        raise RejectError("decode", f"is truncated: image {number} has {len(data)} of {height * width} bytes")
    pixels: UInt8s = np.frombuffer(data, np.uint8).reshape(height, width)
    return DecodedPicture(pixels=pixels, form=None, lossy=False, data=data)
