"""A loader for each modality, with the same file names in each."""
