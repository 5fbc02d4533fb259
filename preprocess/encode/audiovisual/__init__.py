"""Encodes videos with audio into the members `mp4` and `flac`."""
