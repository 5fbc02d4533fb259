"""Bytes to frames and sound."""
