"""Clouds of points, their tokens and voxels."""
