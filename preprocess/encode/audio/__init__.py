"""Encodes audio into the member `flac`."""
