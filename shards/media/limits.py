"""What one picture, frame or sound may hold. Memory is taken only for less, whatever a file or a manifest declares."""

MAX_PIXELS = 1 << 28
"""The most pixels of a picture or of a frame: 16,384 x 16,384."""
