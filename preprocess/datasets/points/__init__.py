"""Point clouds as their publishers lay them out."""
