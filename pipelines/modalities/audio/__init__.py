"""Sounds: spectrograms, noisy mixtures, and the loaders of both."""
