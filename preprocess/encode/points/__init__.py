"""Encodes point clouds into the member `points.npy`."""
