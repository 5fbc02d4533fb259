"""What one picture, frame or sound may hold. Memory is taken only for less, whatever a file or a manifest declares."""

MAX_PIXELS = 1 << 28
"""The most pixels of a picture or of a frame: 16,384 x 16,384."""
MAX_SAMPLE_RATE = (1 << 20) - 1
"""The highest rate of a sound in hertz, which FLAC can name."""
_ALIGNMENT = 128


def most_pixels(width: int, height: int) -> int:
    """The most pixels that a decoder may take memory for, of frames of width x height: codecs align both sides."""
    return (width + _ALIGNMENT) * (height + _ALIGNMENT)
