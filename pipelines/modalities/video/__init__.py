"""Video: clips of frames, their crops, and the loader of masked clips."""
