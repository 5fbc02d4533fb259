"""Clips of a video: which frames, their crops, and the loader of masked clips."""
