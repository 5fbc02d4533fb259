"""Videos as their publishers lay them out."""
