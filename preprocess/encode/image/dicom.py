"""Images in DICOM files, as a viewer displays them: 8-bit grey or RGB. Needs pydicom, the extra `medical`.

Grey values are converted to the modality's values (rescale slope and intercept, or its table), then to intensities: by
the requested window, else by the file's first VOI table or window, else over the full range. Over the full range, data
of up to 8 bits use their whole range, and longer data the range from the smallest to the largest value of the image,
without padding. MONOCHROME1 is inverted; palettes and YBR become RGB. Nothing else of the header is used or kept.

Source: DICOM PS3.3, C.7.6.3.1 (pixels), C.11.1 (modality), C.11.2 (VOI and its three functions).
"""

from __future__ import annotations

import io
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.limits import MEMORY_PER_BYTE, check_image_size, get_limits
from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float64s, UInt8s
from maskstream.shards.errors import DatasetError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Window = tuple[float, float]
"""Centre and width of the displayed grey values after rescaling, such as Hounsfield units."""

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_META_AT = 132
_META_GROUP, _SYNTAX = b"\2\0", b"\x10\0"
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Types of values whose sizes have four bytes, after two reserved bytes."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BYTES_PER_PIXEL = 8
"""Upper bound for a deflated file: three colours of 16 bits, and all other data."""
_FEW_BYTES = 1 << 28
_REMEDY = (
    "`pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg` reads more, or write the file uncompressed, such as "
    "by `gdcmconv --raw`"
)


def is_dicom(data: bytes) -> bool:
    """Return whether a file begins as PS3.10 requires: 128 arbitrary bytes, then DICM."""
    return data[_META_AT - 4 : _META_AT] == b"DICM"


def read_dicom_pixels(data: bytes, window: Window | None) -> tuple[UInt8s, bool]:
    """Decode the image in a DICOM file.

    Args:
        data: Bytes of the file.
        window: Window to apply; None for the file's own.

    Returns:
        uint8 (H, W) grey or (H, W, 3) BGR, and whether it was compressed with loss.

    Raises:
        RejectError: The file has several frames, no image, an unsupported compression, or is damaged.
        DatasetError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DatasetError("DICOM files need pydicom. Run `pip install 'maskstream[medical]'`") from error
    _check_inflated(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on headers
            file = pydicom.dcmread(io.BytesIO(data))
            _check_header(file)
            return _shown(_read_stored(file), file, window), str(file.get("LossyImageCompression", "")) == "01"
    except (RejectError, MemoryError):
        raise
    except Exception as error:  # almost any for a damaged file; its message may quote a patient's header
        raise RejectError("decode", f"is a damaged DICOM file: reading it raised {type(error).__name__}") from None


def _check_inflated(data: bytes) -> None:
    """Raise RejectError for a deflated file that would take too much memory (PS3.5, A.5)."""
    syntax, begin = _read_syntax(data)
    if syntax != _DEFLATED:
        return
    most = min(_BYTES_PER_PIXEL * get_limits().image_pixels, max(_FEW_BYTES, MEMORY_PER_BYTE * len(data)))
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflating.decompress(data[begin:], most)
    except zlib.error as error:
        raise RejectError("open", f"is a damaged DICOM file: its data set does not inflate ({error})") from error
    if inflating.unconsumed_tail:
        raise RejectError("check", f"is a DICOM file that inflates to more than {most} bytes")


def _read_syntax(data: bytes) -> tuple[bytes, int]:
    """Return the transfer syntax in the header of a file, and the start of its data set (PS3.10, 7.1; PS3.5, 7.1.2)."""
    at, syntax = _META_AT, b""
    while data[at : at + 2] == _META_GROUP:
        is_long = data[at + 4 : at + 6] in _LONG
        size_at, size_bytes = (at + 8, 4) if is_long else (at + 6, 2)
        value_at = size_at + size_bytes
        end = value_at + int.from_bytes(data[size_at:value_at], "little")
        if data[at + 2 : at + 4] == _SYNTAX:
            syntax = data[value_at:end].rstrip(b"\0 ")
        at = end
    return syntax, at


def _check_header(file: Dataset) -> None:
    """Raise RejectError unless this is a single image that can be decoded here."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    if not any(name in file for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = UID(str(file.get("SOPClassUID", ""))).name or "no kind"
        raise RejectError("check", f"is a DICOM file without an image ({kind})")
    frames = int(file.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        raise RejectError(
            "check",
            f"has {frames} frames, not one image. Save each frame as a separate file, for example with `dcm2img`",
        )
    check_image_size(int(file.Columns), int(file.Rows))
    syntax = file.file_meta.TransferSyntaxUID
    try:
        is_readable = get_decoder(syntax).is_available
    except NotImplementedError:
        is_readable = False
    if not is_readable:
        raise RejectError("decode", f"is compressed as {syntax.name} ({syntax}), which pillow cannot read. {_REMEDY}")


def _read_stored(file: Dataset) -> npt.NDArray[Any]:
    """Return the values as stored: (H, W), or (H, W, 3) as RGB."""
    from pydicom.pixels.utils import pixel_array

    try:
        return pixel_array(file)
    except RuntimeError as error:  # from all available decoders
        syntax = file.file_meta.TransferSyntaxUID
        raise RejectError(
            "decode",
            f"cannot be decoded: its {syntax.name} is damaged or not supported by pillow. {_REMEDY}",
        ) from error


def _shown(stored: npt.NDArray[Any], file: Dataset, window: Window | None) -> UInt8s:
    """Return the image as a viewer displays it; colours as BGR."""
    from pydicom.pixels.processing import apply_color_lut

    if stored.ndim == 3:
        most = 2 ** int(file.BitsStored) - 1
        return np.asarray(np.rint(stored[..., ::-1] * (255 / most)), np.uint8)
    if file.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(stored, file)
        colours = colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)
        return np.ascontiguousarray(colours[..., 2::-1])
    levels = _convert_to_levels(stored, file, window)
    return np.rint(255 * (1 - levels if file.PhotometricInterpretation == "MONOCHROME1" else levels)).astype(np.uint8)


def _convert_to_levels(stored: npt.NDArray[Any], file: Dataset, window: Window | None) -> Float64s:
    """Convert grey values (H, W) to intensities from 0 to 1."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, file)
    if not np.isfinite(values).all():
        raise RejectError("check", "has values that are not finite")
    if window is None and file.get("VOILUTSequence"):
        most = 2 ** int(file.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return np.asarray(apply_voi(values.astype(np.int64), file) / most)
    if window is None and (centre := _take_first(file, "WindowCenter")) is not None:
        window = centre, float(_take_first(file, "WindowWidth") or 0)
    if window is not None:
        return apply_window(values.astype(np.float64), *window, str(file.get("VOILUTFunction") or "LINEAR"))
    bits = int(file.get("BitsStored", 64))
    if bits <= 8 and not file.PixelRepresentation:
        return np.asarray(stored / (2**bits - 1))
    shown = values[stored != file.PixelPaddingValue] if "PixelPaddingValue" in file else values
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    return np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)


def _take_first(file: Dataset, name: str) -> float | None:
    """Return the first value of a field of one or several numbers."""
    found = file.get(name)
    if found is None or found == "":
        return None
    return float(np.atleast_1d(np.asarray(found, np.float64))[0])


def apply_window(values: Float64s, centre: float, width: float, function: str) -> Float64s:
    """Map values to intensities from 0 to 1 by the functions of C.11.2.1.2 and C.11.2.1.3.

    Args:
        values: Values of any shape (...,).
        centre: Centre of the window.
        width: Width of the window.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        RejectError: The function is unknown, or does not allow this width.
    """
    least = {"LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}.get(function)
    if least is None:
        raise RejectError(
            "check", f"has the VOI function {function!r}; only LINEAR, LINEAR_EXACT and SIGMOID are supported"
        )
    if not np.isfinite([centre, width]).all() or width < least or width == 0:
        raise RejectError(
            "check", f"has a window of width {width:g} around {centre:g}, which {function} does not allow"
        )
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500))))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)
