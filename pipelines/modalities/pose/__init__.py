"""Poses: the loader of masked skeleton sequences, in 3-D and as seen by cameras."""
