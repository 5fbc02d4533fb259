"""Audio-MAE (Huang et al., 2022): masked spectrograms."""
