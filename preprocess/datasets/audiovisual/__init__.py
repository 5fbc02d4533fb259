"""Videos with sound as their publishers lay them out."""
