"""Encodes images from a file into a member."""
