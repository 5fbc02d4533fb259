"""Encodes pose sequences of skeletons."""
