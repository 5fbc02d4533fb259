"""Samples as cards of figures: one set for each modality, and what all of them draw with."""
