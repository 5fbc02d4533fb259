"""Trajectories: the loader of masked RGB-D clips with camera poses and the next waypoint."""
