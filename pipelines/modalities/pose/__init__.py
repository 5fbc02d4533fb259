"""Poses: the loader of masked motions of skeletons, in 3-D and as cameras see them."""
