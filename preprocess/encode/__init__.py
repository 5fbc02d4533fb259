"""One encoder a modality: raw media to the members of a sample."""
