"""Loads real media for the gallery of masks."""
