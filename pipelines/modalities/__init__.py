"""Loaders of all modalities; every modality uses the same file names."""
