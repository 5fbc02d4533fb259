"""Sounds to the member `flac`."""
