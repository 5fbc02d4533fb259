"""Walks: the loader of masked clips of colours and depth, with the poses of the camera and the next waypoint."""
