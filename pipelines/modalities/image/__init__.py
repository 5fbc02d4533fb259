"""Images: the loader of masked images."""
