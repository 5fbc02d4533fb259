"""Decoding of bytes to video frames and sound."""
