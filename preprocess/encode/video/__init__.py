"""Encodes videos into the member `mp4`."""
