"""Images with texts: the loader of masked images and masked texts."""
