"""Figures on cards of samples: a set for each modality, and shared drawing code."""
