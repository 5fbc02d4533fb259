"""Encodes videos with sound into the members `mp4` and `flac`."""
