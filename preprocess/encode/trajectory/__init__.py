"""Encodes trajectories of a camera, and records them in simulators."""
