"""Encodes sounds into the member `flac`."""
