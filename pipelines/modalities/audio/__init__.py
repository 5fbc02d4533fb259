"""Audio: the loaders of masked spectrograms and of noisy mixtures."""
