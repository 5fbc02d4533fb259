"""Encodes motions of skeletons."""
