"""Encodes walks of a camera, and records them in simulators."""
