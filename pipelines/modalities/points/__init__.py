"""Point clouds: their loader, tokens and voxels."""
