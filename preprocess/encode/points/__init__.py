"""Point clouds to the member `points.npy`."""
