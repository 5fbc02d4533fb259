"""Limits for one image, frame or audio file. Memory is allocated only up to these limits, whatever a file or a manifest
declares.
"""

MAX_PIXELS = 1 << 28
"""Largest number of pixels of an image or frame: 16,384 x 16,384."""
MAX_SAMPLE_RATE = (1 << 20) - 1
"""Highest audio sample rate in hertz that FLAC can represent."""
_ALIGNMENT = 128


def most_pixels(width: int, height: int) -> int:
    """Return the maximum number of pixels for which a decoder may allocate memory, for frames of width x height: codecs
    align both sides.
    """
    return (width + _ALIGNMENT) * (height + _ALIGNMENT)
