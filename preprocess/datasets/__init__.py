"""Raw datasets, one file each."""
